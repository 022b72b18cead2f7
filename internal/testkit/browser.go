package testkit

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
	. "github.com/onsi/gomega"
)

// Browser is a tab of a headless Chromium that reaches the loopback interface
// and nothing else. It is used by one test.
type Browser struct {
	ctx context.Context

	mu        sync.Mutex
	requested []string
}

// browsers are what Chromium is called.
var browsers = []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "headless-shell"}

// NewBrowser starts a Browser that ends with the test. Without Chromium the test
// is skipped, but in CI it fails.
func NewBrowser(t *testing.T) *Browser {
	t.Helper()
	i := slices.IndexFunc(browsers, func(name string) bool {
		_, err := exec.LookPath(name)
		return err == nil
	})
	if i < 0 {
		missing := "no Chromium is installed: none of " + strings.Join(browsers, ", ") + " is in the PATH"
		if os.Getenv("CI") == "true" {
			t.Fatal(missing)
		}
		t.Skip("SKIPPED, so pages are not tested in a browser: " + missing)
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(browsers[i]),
		chromedp.DisableGPU,
		chromedp.WSURLReadTimeout(startTimeout), // 20 seconds are little on two busy cores
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"),
	)
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox) // it refuses to run as root otherwise
	}
	allocator, free := chromedp.NewExecAllocator(t.Context(), options...)
	b := &Browser{}
	ctx, end := chromedp.NewContext(allocator)
	t.Cleanup(func() {
		end()
		free()
	})
	b.ctx = ctx
	g := NewWithT(t)
	g.Expect(chromedp.Listen(ctx, b.note)).To(Succeed())
	_, err := chromedp.Call(ctx, network.Enable, network.EnableParams{})
	g.Expect(err).NotTo(HaveOccurred())
	return b
}

func (b *Browser) note(event any) {
	sent, is := event.(*network.EventRequestWillBeSent)
	if is && strings.HasPrefix(sent.Request.URL, "http") { // the browser draws its own inputs with data: URLs
		b.mu.Lock()
		defer b.mu.Unlock()
		b.requested = append(b.requested, sent.Request.Method+" "+sent.Request.URL)
	}
}

// Requested returns what the browser asked for so far, each as "GET URL".
func (b *Browser) Requested() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.requested)
}

// Speak makes the browser ask for pages in a language.
func (b *Browser) Speak(t *testing.T, language string) {
	t.Helper()
	_, err := chromedp.Call(b.ctx, network.SetExtraHTTPHeaders, network.SetExtraHTTPHeadersParams{
		Headers: network.Headers{"Accept-Language": language},
	})
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
}

// Resize gives the tab a size in CSS pixels.
func (b *Browser) Resize(t *testing.T, width, height int64) {
	t.Helper()
	NewWithT(t).Expect(chromedp.Do(b.ctx, chromedp.EmulateViewport(width, height))).To(Succeed())
}

// Darken makes the browser prefer dark colours, or light ones.
func (b *Browser) Darken(t *testing.T, dark bool) {
	t.Helper()
	scheme := "light"
	if dark {
		scheme = "dark"
	}
	_, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
	})
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
}

// Open opens a page and waits until it is loaded.
func (b *Browser) Open(t *testing.T, url string) {
	t.Helper()
	NewWithT(t).Expect(chromedp.Do(b.ctx, chromedp.Navigate(url))).To(Succeed())
}

// fillTimeout is how long an input may take to be there.
const fillTimeout = 10 * time.Second

// fillIn is a function in JavaScript that puts a value into an input, and tells the
// page so as typing does.
const fillIn = `((input, value) => {
	input.value = value
	for (const type of ['input', 'change']) input.dispatchEvent(new Event(type, {bubbles: true}))
	return input.value
})`

// Fill puts a value into the input that a CSS selector names, once it is there.
func (b *Browser) Fill(t *testing.T, selector, value string) {
	t.Helper()
	NewWithT(t).Eventually(func() (string, error) {
		return b.Evaluate(fmt.Sprintf("%s(document.querySelector(%q), %q)", fillIn, selector, value))
	}).WithTimeout(fillTimeout).Should(Equal(value))
}

// maxTabs is how often Press moves on to find what it looks for.
const maxTabs = 30

// Press moves the focus with the tabulator key to the button or link of this
// text and presses Enter, as people do who have no mouse.
func (b *Browser) Press(t *testing.T, text string) {
	t.Helper()
	g := NewWithT(t)
	for range maxTabs {
		g.Expect(chromedp.Do(b.ctx, chromedp.KeyEvent("\t"))).To(Succeed())
		focused, err := b.Evaluate("['BUTTON', 'A'].includes(document.activeElement.tagName) ? document.activeElement.textContent : ''")
		g.Expect(err).NotTo(HaveOccurred())
		if focused == text {
			b.enter(t)
			return
		}
	}
	t.Fatalf("there is no button or link %q", text)
}

// enter presses Enter as a keyboard does: Chromium leaves the character out where the
// key has done something, which may have moved the focus, but not after the event that
// chromedp.KeyEvent begins with.
func (b *Browser) enter(t *testing.T) {
	t.Helper()
	for _, kind := range []input.DispatchKeyEventType{
		input.DispatchKeyEventTypeRawKeyDown, input.DispatchKeyEventTypeChar, input.DispatchKeyEventTypeKeyUp,
	} {
		event := input.DispatchKeyEventParams{Type: kind, Key: "Enter", Code: "Enter", WindowsVirtualKeyCode: '\r', NativeVirtualKeyCode: '\r'}
		if kind == input.DispatchKeyEventTypeChar {
			event.Text, event.UnmodifiedText = "\r", "\r"
		}
		_, err := chromedp.Call(b.ctx, input.DispatchKeyEvent, event)
		NewWithT(t).Expect(err).NotTo(HaveOccurred())
	}
}

// Evaluate returns what an expression in JavaScript is on the page, as text. It
// is an error while the page changes to another.
func (b *Browser) Evaluate(expression string) (string, error) {
	return chromedp.Run(b.ctx, chromedp.Evaluate[string]("String("+expression+")"))
}

// Heading returns the page's heading, empty when there is none.
func (b *Browser) Heading() (string, error) {
	return b.Evaluate("document.querySelector('h1')?.textContent ?? ''")
}

// Photograph writes the whole page to a PNG file.
func (b *Browser) Photograph(t *testing.T, file string) {
	t.Helper()
	g := NewWithT(t)
	picture, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100)) // 100 means PNG
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(os.WriteFile(file, picture, 0o600)).To(Succeed(), fmt.Sprintf("write %s", file))
}
