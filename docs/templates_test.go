package docs_test

import (
	"os"
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"postbus.dev/postbus/internal/recipient"
)

// TestEveryTemplateIsGood holds the templates in the page of ContactList and in
// the samples to what the controller checks.
func TestEveryTemplateIsGood(t *testing.T) {
	g := NewWithT(t)
	var objects []*unstructured.Unstructured
	for _, block := range fence.FindAllStringSubmatch(readPage(t, "ContactList"), -1) {
		if block[1] == "yaml" {
			objects = append(objects, objectsIn(t, block[2])...)
		}
	}
	samples, err := filepath.Glob("../config/samples/*.yaml")
	g.Expect(err).NotTo(HaveOccurred())
	for _, sample := range samples {
		text, err := os.ReadFile(sample)
		g.Expect(err).NotTo(HaveOccurred())
		objects = append(objects, objectsIn(t, string(text))...)
	}
	var mails, pages int
	for _, object := range objects {
		files, is, err := unstructured.NestedStringMap(object.Object, "data")
		g.Expect(err).NotTo(HaveOccurred())
		if !is {
			continue
		}
		if _, mail := files[recipient.MailText]; mail {
			_, err = recipient.ParseMail(files)
			mails++
		} else {
			_, err = recipient.ParsePages(files)
			pages++
		}
		g.Expect(err).NotTo(HaveOccurred(), object.GetName())
	}
	g.Expect([]int{mails, pages}).To(Equal([]int{2, 1}))
}
