package main

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"postbus.dev/postbus/internal/testkit"
)

// TestBackupGoesOnWhereItStood backs a store up while contacts come in and their
// callback is down, loses the store, and goes on with the backup.
func TestBackupGoesOnWhereItStood(t *testing.T) {
	g := NewWithT(t)
	i := newInstallation(t)
	receiver := testkit.NewReceiver(t)
	objects := declare(t, receiver.URL())
	patch := client.MergeFrom(objects.subscription.DeepCopy())
	objects.subscription.Spec.Retry.Intervals = []metav1.Duration{{Duration: time.Second}, {Duration: time.Hour}}
	g.Expect(plane.Client.Patch(t.Context(), objects.subscription, patch)).To(Succeed())
	process := i.start()
	objects.waitUntilReady(t, i)
	postAll := func(from, to int) {
		for n := from; n < to; n++ {
			g.Expect(post(t, i.ingress, objects.key, fmt.Sprintf("ada.%d@example.com", n))).To(BeTrue())
		}
	}
	postAll(0, 20)
	calls := &callBook{}
	g.Eventually(func() int { return calls.read(t, receiver) }, patience).Should(Equal(20))
	g.Eventually(func() bool { return i.hasSent(objects.subscription.Name) }, patience).Should(BeTrue())
	receiver.Answer(http.StatusServiceUnavailable)
	postAll(20, 60)

	copied := filepath.Join(t.TempDir(), "backup.db")
	posting := make(chan struct{})
	go func() { defer close(posting); postAll(60, 200) }()
	g.Expect(run(t.Context(), []string{"backup", "--store=" + i.store, "--to=" + copied}, nil)).To(Succeed())
	<-posting
	process.signal(syscall.SIGKILL)
	g.Expect(os.Remove(i.store)).To(Succeed())
	g.Expect(os.RemoveAll(i.store + "-wal")).To(Succeed())
	g.Expect(os.Rename(copied, i.store)).To(Succeed())

	receiver.Answer(http.StatusOK)
	before := receiver.Count()
	i.start()
	postAll(20, 200) // what came after the backup is new, and what came before is known
	g.Eventually(func() int { return calls.read(t, receiver) }, patience).Should(Equal(200))
	for _, call := range receiver.Calls()[before:] {
		for n := range 20 {
			g.Expect(string(call.Body)).NotTo(ContainSubstring(fmt.Sprintf(`"ada.%d@example.com"`, n)), "it was delivered before the backup")
		}
	}
}

func TestBackupRefuses(t *testing.T) {
	g := NewWithT(t)
	i := newInstallation(t)
	process := i.start()
	process.end()

	var streamed bytes.Buffer
	g.Expect(run(t.Context(), []string{"backup", "--store=" + i.store, "--to=-"}, &streamed)).To(Succeed())
	g.Expect(streamed.String()).To(HavePrefix("SQLite format 3\x00"))
	again := filepath.Join(t.TempDir(), "again.db")
	g.Expect(os.WriteFile(again, streamed.Bytes(), 0o600)).To(Succeed())
	second := again + ".copy"
	g.Expect(run(t.Context(), []string{"backup", "--store=" + again, "--to=" + second}, nil)).To(Succeed(), "a backup is a store")
	info, err := os.Stat(second)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(info.Mode().Perm()).To(Equal(os.FileMode(0o600)))
	g.Expect(filepath.Glob(filepath.Join(filepath.Dir(i.store), ".backup-*"))).To(BeEmpty())

	for name, row := range map[string]struct {
		arguments []string
		error     string
	}{
		"a file that is there": {[]string{"--store=" + i.store, "--to=" + second}, "file already exists"},
		"no store":             {[]string{"--store=" + i.store + ".not", "--to=" + second + ".2"}, "no such file"},
		"no target":            {[]string{"--store=" + i.store}, "--to is missing"},
		"a folder that is not": {[]string{"--store=" + i.store, "--to=/nowhere/backup.db"}, "no such file"},
		"something else":       {[]string{"--to=x", "more"}, "unexpected argument"},
	} {
		t.Run(name, func(t *testing.T) {
			NewWithT(t).Expect(run(t.Context(), append([]string{"backup"}, row.arguments...), nil)).To(MatchError(ContainSubstring(row.error)))
		})
	}
}
