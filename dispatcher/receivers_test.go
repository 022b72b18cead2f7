package dispatcher

import (
	"bufio"
	"bytes"
	"context"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/signature"
	"postbus.dev/postbus/internal/testkit"
)

// A snippet is a receiver in docs/receivers.md: the first block of its language. The
// second, where there is one, is what its function signed is with a public key.
type snippet struct {
	language, file string
	// signed is that function.
	signed *regexp.Regexp
	// command returns how the file is run.
	command func(t *testing.T, file, port string) []string
}

var snippets = map[string]snippet{
	"Go": {"go", "main.go", regexp.MustCompile(`(?ms)^// signed tells.*?^}$`), func(t *testing.T, file, _ string) []string {
		binary := filepath.Join(filepath.Dir(file), "receiver")
		build := exec.CommandContext(t.Context(), "go", "build", "-o", binary, file)
		output, err := build.CombinedOutput()
		NewWithT(t).Expect(err).NotTo(HaveOccurred(), string(output))
		return []string{binary}
	}},
	"Python": {"python", "receiver.py", nil, func(t *testing.T, file, _ string) []string {
		return []string{python(t), file}
	}},
	"Node.js": {"js", "receiver.mjs", regexp.MustCompile(`(?ms)^// signed tells.*?^}$`), func(t *testing.T, file, _ string) []string {
		return []string{installed(t, "node"), file}
	}},
	"PHP": {"php", "receiver.php", regexp.MustCompile(`(?ms)^// signed tells.*?^}$`), func(t *testing.T, file, port string) []string {
		return []string{installed(t, "php"), "-S", "127.0.0.1:" + port, file}
	}},
}

// goImports is what is said there of the imports in Go.
var goImports = strings.NewReplacer("\t\"crypto/hmac\"\n\t\"crypto/sha256\"\n", "\t\"crypto/ed25519\"\n")

// program returns the text of the receiver, which verifies calls with a secret or with
// a public key.
func (s snippet) program(t *testing.T, byPublicKey bool) string {
	t.Helper()
	g := NewWithT(t)
	page, err := os.ReadFile("../docs/receivers.md")
	g.Expect(err).NotTo(HaveOccurred())
	blocks := regexp.MustCompile("(?ms)^```"+s.language+"\n(.*?)^```$").FindAllSubmatch(page, -1)
	if s.signed == nil {
		g.Expect(blocks).To(HaveLen(1))
		return string(blocks[0][1])
	}
	g.Expect(blocks).To(HaveLen(2))
	program := string(blocks[0][1])
	g.Expect(s.signed.FindAllString(program, -1)).To(HaveLen(1))
	if !byPublicKey {
		return program
	}
	program = strings.Replace(program, s.signed.FindString(program), string(blocks[1][1]), 1)
	if s.language == "go" {
		program = goImports.Replace(program)
	}
	return program
}

// documented is a receiver of docs/receivers.md that runs.
type documented struct {
	url string
	// taken has the ids of the events that it took for new.
	taken chan string
}

// run runs the receiver until the test ends. It verifies calls that are signed with
// a secret; where that is a private key, with the public one.
func (s snippet) run(t *testing.T, secret string) *documented {
	t.Helper()
	g := NewWithT(t)
	public := publicKey(t, secret)
	key := secret
	if public != "" {
		key = strings.TrimPrefix(public, "whpk_")
	}
	folder := t.TempDir()
	file := filepath.Join(folder, s.file)
	g.Expect(os.WriteFile(file, []byte(s.program(t, public != "")), 0o600)).To(Succeed())
	port := freePort(t)
	arguments := s.command(t, file, port)
	command := exec.CommandContext(t.Context(), arguments[0], arguments[1:]...)
	command.Env = append(os.Environ(), "POSTBUS_SECRET="+key, "POSTBUS_INBOX="+folder, "PORT="+port)
	output, err := command.StdoutPipe()
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(command.Start()).To(Succeed())
	d := &documented{url: "http://127.0.0.1:" + port + "/hooks/postbus", taken: make(chan string, 100)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for lines := bufio.NewScanner(output); lines.Scan(); {
			if id, isNew := strings.CutPrefix(lines.Text(), "new "); isNew {
				d.taken <- id
			}
		}
	}()
	t.Cleanup(func() {
		_ = command.Process.Kill()
		<-ended
		_ = command.Wait() // it was killed
	})
	g.Eventually(func() error {
		connection, err := new(net.Dialer).DialContext(t.Context(), "tcp", "127.0.0.1:"+port)
		if err == nil {
			err = connection.Close()
		}
		return err
	}, patience, 10*time.Millisecond).Should(Succeed())
	return d
}

func freePort(t *testing.T) string {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	port := listener.Addr().(*net.TCPAddr).Port
	NewWithT(t).Expect(listener.Close()).To(Succeed())
	return strconv.Itoa(port)
}

// forward sends a call on, as it is or as it was changed, and returns the status of
// the answer.
func (d *documented) forward(ctx context.Context, header http.Header, body []byte) (int, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, d.url, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	request.Header = header
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	return response.StatusCode, response.Body.Close()
}

// forged are calls that a receiver must refuse, made of one that it must accept.
func forged(good testkit.Call, secret string) map[string]testkit.Call {
	id := good.Header.Get(signature.HeaderID)
	change := func(body []byte, changed map[string]string) testkit.Call {
		header := good.Header.Clone()
		for name, value := range changed {
			header.Set(name, value)
		}
		return testkit.Call{Header: header, Body: body}
	}
	signed := func(by string, at time.Time, body []byte) map[string]string {
		secrets, _ := signature.ParseSecrets(map[string][]byte{signature.SecretKey: []byte(by)}) // each is good
		timestamp, header := secrets.Sign(id, at, body)
		return map[string]string{signature.HeaderTimestamp: timestamp, signature.HeaderSignature: header}
	}
	damaged := bytes.Clone(good.Body)
	damaged[len(damaged)/2] ^= 1
	strange := signature.GenerateSecret(v1alpha1.SigningHMAC)
	private := signature.GenerateSecret(v1alpha1.SigningEd25519)
	calls := map[string]testkit.Call{
		"a damaged body":             change(damaged, nil),
		"a longer body":              change(append(bytes.Clone(good.Body), ' '), nil),
		"no body":                    change(nil, nil),
		"another id":                 change(good.Body, map[string]string{signature.HeaderID: id + "0"}),
		"no id":                      change(good.Body, map[string]string{signature.HeaderID: ""}),
		"another timestamp":          change(good.Body, map[string]string{signature.HeaderTimestamp: strconv.FormatInt(time.Now().Unix()-7, 10)}),
		"a timestamp that is none":   change(good.Body, map[string]string{signature.HeaderTimestamp: "now"}),
		"a timestamp of many digits": change(good.Body, map[string]string{signature.HeaderTimestamp: strings.Repeat("9", 40)}),
		"no timestamp":               change(good.Body, map[string]string{signature.HeaderTimestamp: ""}),
		"an old timestamp":           change(good.Body, signed(secret, time.Now().Add(-6*time.Minute), good.Body)),
		"a timestamp of the future":  change(good.Body, signed(secret, time.Now().Add(6*time.Minute), good.Body)),
		"another secret":             change(good.Body, signed(strange, time.Now(), good.Body)),
		"another private key":        change(good.Body, signed(private, time.Now(), good.Body)),
		"no signature":               change(good.Body, map[string]string{signature.HeaderSignature: ""}),
		"a signature without a part": change(good.Body, map[string]string{signature.HeaderSignature: "v1"}),
		"signatures of nothing":      change(good.Body, map[string]string{signature.HeaderSignature: "v1, v1, v1a, v1a"}),
		"a signature that is cut":    change(good.Body, map[string]string{signature.HeaderSignature: good.Header.Get(signature.HeaderSignature)[:20]}),
		"a signature in umlauts":     change(good.Body, map[string]string{signature.HeaderSignature: "v1,äöü"}),
	}
	if known, _ := signature.ParseSecret(secret); known.PublicKey() != "" {
		confused := strings.Replace(known.PublicKey(), "whpk_", "whsec_", 1)
		calls["the public key for a secret"] = change(good.Body, signed(confused, time.Now(), good.Body))
	}
	return calls
}

// gate stands before a receiver: of each call it sends what can be forged first, and
// the call itself twice. It tells the ids of calls that all this is done with.
func (d *documented) gate(t *testing.T, r *testkit.Receiver, secret string) <-chan string {
	through := make(chan string, 100)
	r.AnswerWith(func(w http.ResponseWriter, request *http.Request) {
		calls := r.Calls()
		good := calls[len(calls)-1]
		for what, call := range forged(good, secret) {
			if status, err := d.forward(request.Context(), call.Header, call.Body); err != nil || status != http.StatusUnauthorized {
				t.Errorf("%s got %d, %v", what, status, err)
			}
		}
		for range 2 {
			if status, err := d.forward(request.Context(), good.Header, good.Body); err != nil || status != http.StatusNoContent {
				t.Errorf("the call itself got %d, %v", status, err)
			}
		}
		w.WriteHeader(http.StatusNoContent)
		through <- good.Header.Get(signature.HeaderID)
	})
	return through
}

// The receivers of docs/receivers.md accept what the dispatcher sends, while the
// secret is rotated and theirs is the older one, too; and nothing else.
func TestDocumentedReceivers(t *testing.T) {
	for name, s := range snippets {
		t.Run(name, func(t *testing.T) { s.test(t, signature.GenerateSecret(v1alpha1.SigningHMAC)) })
		if s.signed != nil {
			t.Run(name+" by public key", func(t *testing.T) { s.test(t, signature.GenerateSecret(v1alpha1.SigningEd25519)) })
		}
	}
}

func (s snippet) test(t *testing.T, secret string) {
	t.Helper()
	t.Parallel()
	g := NewWithT(t)
	receiver := s.run(t, secret)
	r := newRig(t)
	through := receiver.gate(t, r.receiver, secret)
	for name, data := range map[string]map[string]string{
		"gated-signing":  {signature.SecretKey: secret},
		"direct-signing": {signature.SecretKey: signature.GenerateSecret(v1alpha1.SigningHMAC), signature.PreviousKey: secret},
	} {
		g.Expect(plane.Client.Create(t.Context(), &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: r.namespace, Name: name}, StringData: data,
		})).To(Succeed())
	}
	r.subscribe("gated", nil)
	direct := r.subscribe("direct", func(object *v1alpha1.WebhookSubscription) { object.Spec.Callback.URL = receiver.url })
	r.run()
	for _, address := range []string{"ada@example.com", "grüße@example.com"} {
		sent := r.post(address)
		g.Eventually(through, patience).Should(Receive(Equal(sent)))
		g.Eventually(r.delivery(direct), patience).Should(And(
			HaveField("Open", BeEmpty()), HaveField("Health.LastSuccess", Not(BeZero())), HaveField("Health.LastFailure", BeNil())))
		g.Eventually(receiver.taken, patience).Should(Receive(Equal(sent)))
	}
	g.Expect(receiver.taken).NotTo(Receive(), "each came three times and was taken once")
}
