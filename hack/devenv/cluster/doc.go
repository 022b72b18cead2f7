// Package cluster answers: where does a Kubernetes API come from on a
// developer's machine?
//
// It starts etcd and kube-apiserver as plain processes, with their data in a
// folder, so that objects are there again at the next start. No controller
// manager and no kubelet run: nothing makes pods, collects garbage, or finishes
// the deletion of a namespace. Everything listens on 127.0.0.1 only.
package cluster
