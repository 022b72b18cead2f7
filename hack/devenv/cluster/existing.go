package cluster

import (
	"fmt"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// UseExisting takes a cluster that runs already: the current context of a
// kubeconfig, or of KUBECONFIG and ~/.kube/config where the path is empty. It
// copies that context, and what it needs of other files, to the second path.
func UseExisting(from, to string) (*rest.Config, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = from
	kubeconfig, err := rules.Load()
	if err != nil {
		return nil, fmt.Errorf("read the existing cluster's kubeconfig: %w", err)
	}
	if err := clientcmdapi.MinifyConfig(kubeconfig); err != nil {
		return nil, fmt.Errorf("find the current context of the kubeconfig: %w", err)
	}
	if err := clientcmdapi.FlattenConfig(kubeconfig); err != nil {
		return nil, fmt.Errorf("read the files that the kubeconfig names: %w", err)
	}
	config, err := clientcmd.NewDefaultClientConfig(*kubeconfig, nil).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("use the existing cluster's kubeconfig: %w", err)
	}
	return config, saveKubeconfig(to, kubeconfig)
}
