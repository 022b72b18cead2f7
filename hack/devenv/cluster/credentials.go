package cluster

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// contextName is the name of cluster, user and context in a kubeconfig.
const contextName = "postbus"

// credentials are what the API server knows its administrator by, and signs
// service accounts' tokens with. They stay the same over restarts.
type credentials struct {
	token                 string
	tokenFile             string
	serviceAccountKeyFile string
}

func loadOrMakeCredentials(dir string) (credentials, error) {
	c := credentials{
		tokenFile:             filepath.Join(dir, "tokens.csv"),
		serviceAccountKeyFile: filepath.Join(dir, "service-account.key"),
	}
	line, err := readOrMake(c.tokenFile, makeTokenLine)
	if err != nil {
		return credentials{}, fmt.Errorf("prepare the administrator's token: %w", err)
	}
	c.token, _, _ = strings.Cut(line, ",")
	if _, err := readOrMake(c.serviceAccountKeyFile, makeKey); err != nil {
		return credentials{}, fmt.Errorf("prepare the service account key: %w", err)
	}
	return c, nil
}

func makeTokenLine() (string, error) {
	return rand.Text() + `,admin,admin,"system:masters"` + "\n", nil
}

func makeKey() (string, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", err
	}
	encoded, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return "", err
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: encoded})), nil
}

// readOrMake returns what a file holds, and writes it first where it does not
// exist.
func readOrMake(path string, produce func() (string, error)) (string, error) {
	text, err := os.ReadFile(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return string(text), err
	}
	made, err := produce()
	if err != nil {
		return "", err
	}
	return made, writePrivate(path, []byte(made))
}

// writePrivate writes a file that the user alone can read, as a whole or not
// at all.
func writePrivate(path string, text []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	fresh := path + ".new"
	if err := os.WriteFile(fresh, text, 0o600); err != nil {
		return err
	}
	return os.Rename(fresh, path)
}

// writeKubeconfig writes a kubeconfig that needs no other file.
func writeKubeconfig(path string, config *rest.Config) error {
	authority, err := os.ReadFile(config.CAFile)
	if err != nil {
		return fmt.Errorf("read the API server's certificate: %w", err)
	}
	kubeconfig := clientcmdapi.NewConfig()
	kubeconfig.Clusters[contextName] = &clientcmdapi.Cluster{Server: config.Host, CertificateAuthorityData: authority}
	kubeconfig.AuthInfos[contextName] = &clientcmdapi.AuthInfo{Token: config.BearerToken}
	kubeconfig.Contexts[contextName] = &clientcmdapi.Context{Cluster: contextName, AuthInfo: contextName}
	kubeconfig.CurrentContext = contextName
	return saveKubeconfig(path, kubeconfig)
}

func saveKubeconfig(path string, kubeconfig *clientcmdapi.Config) error {
	text, err := clientcmd.Write(*kubeconfig)
	if err != nil {
		return fmt.Errorf("encode the kubeconfig: %w", err)
	}
	if err := writePrivate(path, text); err != nil {
		return fmt.Errorf("write the kubeconfig: %w", err)
	}
	return nil
}

func trimScheme(host string) string {
	_, address, found := strings.Cut(host, "://")
	if !found {
		return host
	}
	return address
}
