// Command dispatcher attacks the memory of a running dispatcher, as a tenant and the holder of a
// key can, beside a healthy neighbor:
//
//   - a template of 300 characters that gives 772 KB of JSON, with rateLimit.maxInFlight 1000
//     and a callback that accepts connections and never reads;
//   - 5,000 contacts of 64 KiB, the largest that ingress takes.
//
// It starts a control plane and the program, standalone with SQLite and with GOMEMLIMIT as it
// is shipped, talks to loopback only, and ends after some minutes at most. It fails where the
// program ended, its resident memory came to more than 700 MiB, or the neighbor lacks an event.
//
//	go build -o /tmp/postbus . && go run ./test/attack/dispatcher -program /tmp/postbus
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/apikey"
	"postbus.dev/postbus/internal/signature"
	"postbus.dev/postbus/internal/testkit"
)

const (
	namespace   = "attack"
	bombs, fat  = 1000, 5000
	callers     = 16
	fields      = 64 // of 255 characters of four bytes: 65,280 bytes
	mostRSS     = 700 << 20
	memoryLimit = "GOMEMLIMIT=1073741824"
	patience    = 10 * time.Minute
	bombTime    = 30 * time.Second
)

func main() {
	program := flag.String("program", "", "`path` of postbus")
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	err := run(ctx, *program)
	cancel()
	if err != nil {
		fmt.Fprintln(os.Stderr, "attack:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, program string) (err error) {
	plane, err := testkit.StartControlPlane()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, plane.Stop()) }()
	folder, err := os.MkdirTemp("", "attack")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	deaf, err := newDeaf(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = deaf.Close() }()
	neighbor := newNeighbor()
	defer neighbor.Close()
	key := apikey.Generate()
	for _, object := range objects(key, "http://"+deaf.Addr().String()+"/", neighbor.URL) {
		if err := plane.Client.Create(ctx, object); err != nil {
			return err
		}
	}
	v, err := startVictim(ctx, program, folder, plane)
	if err != nil {
		return err
	}
	defer v.stop()
	return attack(ctx, v, neighbor, key)
}

// attack posts the contacts and watches the program.
func attack(ctx context.Context, v *victim, neighbor *neighbor, key string) error {
	if err := v.waitFor(ctx, "a contact is accepted", func() bool { return v.post(ctx, key, "first@example.com", nil) == nil }); err != nil {
		return err
	}
	began := time.Now()
	if err := v.postMany(ctx, key, "bomb", bombs, nil); err != nil {
		return err
	}
	if err := v.waitFor(ctx, "the bomb's time is over", func() bool { return time.Since(began) > bombTime }); err != nil {
		return err
	}
	fmt.Printf("template bomb: the neighbor has %d events of %d, peak RSS %d MiB\n", neighbor.count(), bombs+1, v.peak.Load()>>20)
	large := map[string]any{}
	for n := range fields {
		large[fmt.Sprintf("custom_field%d", n)] = strings.Repeat("😀", 255)
	}
	if err := v.postMany(ctx, key, "fat", fat, large); err != nil {
		return err
	}
	const all = 1 + bombs + fat
	if err := v.waitFor(ctx, "the neighbor has every event", func() bool { return neighbor.count() >= all }); err != nil {
		return err
	}
	fmt.Printf("fat contacts: the neighbor has %d events of %d, peak RSS %d MiB after %s\n",
		neighbor.count(), all, v.peak.Load()>>20, time.Since(began).Round(time.Second))
	if v.peak.Load() > mostRSS {
		return fmt.Errorf("the resident memory came to %d MiB, more than %d", v.peak.Load()>>20, mostRSS>>20)
	}
	return nil
}

// objects are what the tenants apply.
func objects(key, deaf, neighbor string) []client.Object {
	list := testkit.List(namespace, "newsletter")
	for n := range fields {
		list.Spec.CustomFields = append(list.Spec.CustomFields, v1alpha1.CustomField{Name: fmt.Sprintf("field%d", n), Type: v1alpha1.CustomFieldString})
	}
	bomb := testkit.Subscription(namespace, "bomb", deaf)
	bomb.Spec.Events = []v1alpha1.EventType{"Create"}
	bomb.Spec.Callback.Timeout = &metav1.Duration{Duration: 30 * time.Second}
	bomb.Spec.RateLimit.MaxInFlight = 1000
	bomb.Spec.Payload.Format = v1alpha1.FormatTemplate
	bomb.Spec.Payload.Template = `cel.bind(a, [event.contact.email` + strings.Repeat(`, "0123456789"`, 90) + `], cel.bind(b, [a` + strings.Repeat(", a", 9) +
		`], cel.bind(c, [b` + strings.Repeat(", b", 9) + `], [c, c, c, c, c, c])))`
	healthy := testkit.Subscription(namespace, "healthy", neighbor)
	healthy.Spec.Events = []v1alpha1.EventType{"Create"}
	return []client.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}},
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "form"}, StringData: map[string]string{apikey.SecretKey: key}},
		list, testkit.ApiKey(namespace, "form", "newsletter"), bomb, healthy,
	}
}

// newDeaf listens, and accepts connections that it never reads from.
func newDeaf(ctx context.Context) (net.Listener, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	go func() {
		var held []net.Conn
		defer func() { // until then they must stay open
			for _, connection := range held {
				_ = connection.Close()
			}
		}()
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			held = append(held, connection)
		}
	}()
	return listener, nil
}

// neighbor is the callback of the healthy subscription.
type neighbor struct {
	*httptest.Server
	mu  sync.Mutex
	ids map[string]struct{}
}

func newNeighbor() *neighbor {
	n := &neighbor{ids: map[string]struct{}{}}
	n.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, call *http.Request) {
		if _, err := io.Copy(io.Discard, call.Body); err != nil {
			return
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		n.ids[call.Header.Get(signature.HeaderID)] = struct{}{}
	}))
	return n
}

func (n *neighbor) count() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.ids)
}

// victim is the running program.
type victim struct {
	ingress string
	command *exec.Cmd
	exited  chan struct{}
	// peak is the most resident memory that was seen.
	peak atomic.Int64
}

func startVictim(ctx context.Context, program, folder string, plane *testkit.ControlPlane) (*victim, error) {
	config := clientcmdapi.NewConfig()
	config.Clusters["test"] = &clientcmdapi.Cluster{Server: plane.Config.Host, CertificateAuthorityData: plane.Config.CAData}
	config.AuthInfos["test"] = &clientcmdapi.AuthInfo{ClientCertificateData: plane.Config.CertData, ClientKeyData: plane.Config.KeyData}
	config.Contexts["test"] = &clientcmdapi.Context{Cluster: "test", AuthInfo: "test"}
	config.CurrentContext = "test"
	kubeconfig := filepath.Join(folder, "kubeconfig")
	if err := clientcmd.WriteToFile(*config, kubeconfig); err != nil {
		return nil, err
	}
	free, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	v := &victim{ingress: free.Addr().String(), exited: make(chan struct{})}
	if err := free.Close(); err != nil {
		return nil, err
	}
	v.command = exec.CommandContext(ctx, program, "standalone", "--kubeconfig="+kubeconfig, "--store="+filepath.Join(folder, "postbus.db"),
		"--ingress-address="+v.ingress, "--metrics-address=127.0.0.1:0", "--allow-plain-http",
		"--allow-http-callbacks", "--allow-callback-networks=127.0.0.0/8")
	v.command.Env = append(os.Environ(), memoryLimit)
	v.command.Stderr = os.Stderr
	if err := v.command.Start(); err != nil {
		return nil, fmt.Errorf("start the program: %w", err)
	}
	go func() {
		_ = v.command.Wait() // that it ended is what counts
		close(v.exited)
	}()
	return v, nil
}

func (v *victim) stop() {
	_ = v.command.Process.Signal(syscall.SIGTERM)
	<-v.exited
}

// waitFor looks again and again, and at the program's memory meanwhile.
func (v *victim) waitFor(ctx context.Context, what string, done func() bool) error {
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for !done() {
		v.look()
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until %s: %w", what, ctx.Err())
		case <-v.exited:
			return fmt.Errorf("the program ended before %s", what)
		case <-ticker.C:
		}
	}
	v.look()
	return nil
}

// look notes the most resident memory that the kernel has seen.
func (v *victim) look() {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", v.command.Process.Pid))
	if err != nil {
		return
	}
	_, rest, _ := bytes.Cut(status, []byte("VmHWM:"))
	if words := bytes.Fields(rest); len(words) > 0 {
		if kilobytes, err := strconv.ParseInt(string(words[0]), 10, 64); err == nil {
			v.peak.Store(kilobytes << 10)
		}
	}
}

func (v *victim) post(ctx context.Context, key, email string, more map[string]any) error {
	parameters := map[string]any{"key": key, "email": email, "permission": 2}
	for name, value := range more {
		parameters[name] = value
	}
	body, err := json.Marshal(parameters)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+v.ingress+"/webhooks/contacts/email", bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	said, err := io.ReadAll(io.LimitReader(answer.Body, 1<<10))
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("ingress answered %d: %s", answer.StatusCode, said)
	}
	return err
}

// postMany posts contacts, each again until it is accepted.
func (v *victim) postMany(ctx context.Context, key, name string, count int, more map[string]any) error {
	posting, ctx := errgroup.WithContext(ctx)
	posting.SetLimit(callers)
	for n := range count {
		posting.Go(func() error {
			return v.waitFor(ctx, name+" is posted", func() bool {
				return v.post(ctx, key, fmt.Sprintf("%s.%d@example.com", name, n), more) == nil
			})
		})
	}
	return posting.Wait()
}
