package docs_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
)

// Each test that the threat model names exists.
func TestSecurityPageNamesTests(t *testing.T) {
	g := NewWithT(t)
	page, err := os.ReadFile("security.md")
	g.Expect(err).NotTo(HaveOccurred())
	named := regexp.MustCompile("`(Test[A-Za-z0-9]+)`").FindAllStringSubmatch(string(page), -1)
	g.Expect(len(named)).To(BeNumerically(">", 30))

	var tests strings.Builder
	root := os.DirFS("..")
	g.Expect(fs.WalkDir(root, ".", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (entry.Name() == "node_modules" || entry.Name() == "bin" || entry.Name() == ".git"):
			return filepath.SkipDir
		case entry.IsDir() || !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		text, err := fs.ReadFile(root, path)
		tests.Write(text)
		return err
	})).To(Succeed())
	for _, name := range named {
		g.Expect(tests.String()).To(ContainSubstring("\nfunc "+name[1]+"("), "docs/security.md names it")
	}
}
