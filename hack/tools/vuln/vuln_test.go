package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/gomega"
)

// plant writes a module that calls language.Parse of golang.org/x/text v0.3.5, which
// GO-2021-0113 (out-of-bounds read, fixed in v0.3.7) is about, and makes it ready for offline use.
func plant(t *testing.T) (folder string) {
	t.Helper()
	folder = t.TempDir()
	g := NewWithT(t)
	for name, text := range map[string]string{
		"go.mod":  "module planted.example\n\ngo 1.21\n\nrequire golang.org/x/text v0.3.5\n",
		"main.go": "package main\n\nimport \"golang.org/x/text/language\"\n\nfunc main() { _, _ = language.Parse(\"de\") }\n",
	} {
		g.Expect(os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600)).To(Succeed())
	}
	tidy := exec.CommandContext(t.Context(), "go", "mod", "tidy")
	tidy.Dir = folder
	output, err := tidy.CombinedOutput()
	g.Expect(err).NotTo(HaveOccurred(), string(output))
	return folder
}

func TestPlantedVulnerabilityIsFoundOffline(t *testing.T) {
	g := NewWithT(t)
	folder := plant(t)
	_, _, err := findDatabase(t.Context())
	g.Expect(err).NotTo(HaveOccurred())

	t.Setenv("GOPROXY", "off")
	var out bytes.Buffer
	offline := check{out: &out, directory: folder, ci: true, now: time.Now()}
	err = offline.run(t.Context(), []string{"./..."})
	g.Expect(err).To(MatchError(And(
		ContainSubstring("GO-2021-0113"), ContainSubstring("golang.org/x/text@v0.3.5, fixed in v0.3.7"),
		ContainSubstring("golang.org/x/text/language.Parse"))))
	g.Expect(out.String()).To(ContainSubstring("database: golang.org/x/vulndb v"))

	offline.accepted = filepath.Join(t.TempDir(), "accepted.yaml")
	g.Expect(os.WriteFile(offline.accepted, []byte(
		"- {id: GO-2021-0113, reason: the argument is a constant, expires: 2027-01-01}\n"), 0o600)).To(Succeed())
	offline.now = time.Date(2026, time.December, 31, 0, 0, 0, 0, time.UTC)
	g.Expect(offline.run(t.Context(), []string{"./..."})).To(Succeed())
	g.Expect(out.String()).To(ContainSubstring("GO-2021-0113 is accepted until 2027-01-01: the argument is a constant"))

	offline.now = time.Date(2027, time.January, 1, 0, 0, 0, 0, time.UTC)
	g.Expect(offline.run(t.Context(), []string{"./..."})).To(MatchError(ContainSubstring("GO-2021-0113 is accepted until 2027-01-01 only")))
}

func TestScanWithoutADatabaseFailsInCI(t *testing.T) {
	g := NewWithT(t)
	t.Setenv("GOPROXY", "off")
	t.Setenv("GOMODCACHE", t.TempDir())
	var out bytes.Buffer
	g.Expect((&check{out: &out, now: time.Now()}).run(t.Context(), nil)).To(Succeed())
	g.Expect(out.String()).To(ContainSubstring("WARNING: vulnerabilities were NOT checked"))

	g.Expect((&check{out: &out, now: time.Now(), ci: true}).run(t.Context(), nil)).To(MatchError(errNoDatabase))
	missing := check{out: &out, now: time.Now(), ci: true, database: fileURL(t.TempDir())}
	g.Expect(missing.run(t.Context(), nil)).To(MatchError(errNoDatabase))
}

func TestAcceptancesThatNothingNeedsAreErrors(t *testing.T) {
	g := NewWithT(t)
	called := findings{"GO-1": {id: "GO-1", module: "example.com/m", version: "v1.0.0", called: []string{"main.main", "m.F"}}}
	now := time.Date(2026, time.December, 1, 0, 0, 0, 0, time.UTC)
	var out bytes.Buffer
	g.Expect(judge(&out, called, []acceptance{{ID: "GO-1", Reason: "why", Expires: "2026-12-02"}}, now)).To(Succeed())
	g.Expect(judge(&out, findings{}, []acceptance{{ID: "GO-1", Reason: "why", Expires: "2026-12-02"}}, now)).
		To(MatchError(ContainSubstring("GO-1 is accepted but no longer found")))
	g.Expect(judge(&out, findings{"GO-2": {id: "GO-2"}}, nil, now)).To(Succeed())
	g.Expect(out.String()).To(ContainSubstring("GO-2 is not called"))
}

func TestAcceptancesNeedAReasonAndADay(t *testing.T) {
	for _, text := range []string{"- {id: GO-1, expires: 2027-01-01}", "- {id: GO-1, reason: why}", "- {id: GO-1, reason: why, expires: soon}", "- {id: GO-1, because: why}"} {
		t.Run(text, func(t *testing.T) {
			g := NewWithT(t)
			file := filepath.Join(t.TempDir(), "accepted.yaml")
			g.Expect(os.WriteFile(file, []byte(text), 0o600)).To(Succeed())
			_, err := readAccepted(file)
			g.Expect(err).To(HaveOccurred())
		})
	}
}
