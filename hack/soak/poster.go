package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

const (
	// callTimeout is how long a caller waits for an answer.
	callTimeout = 5 * time.Second
	// callAgain is the wait before a caller tries again what was not accepted.
	callAgain = 200 * time.Millisecond
)

// poster posts contacts, each until it is accepted, as a form's server would.
type poster struct {
	settings settings
	client   *http.Client
	prefix   string // what the addresses of this run begin with

	mu    sync.Mutex
	taken []acceptance
	// refused counts answers other than 200 and calls without an answer.
	refused map[string]int
}

// acceptance is a contact that was accepted.
type acceptance struct {
	email string
	at    time.Time
	took  time.Duration
}

func newPoster(s settings) *poster {
	return &poster{
		settings: s, prefix: fmt.Sprintf("soak-%d", time.Now().Unix()), refused: map[string]int{},
		client: &http.Client{Timeout: callTimeout, Transport: &http.Transport{MaxIdleConnsPerHost: s.callers, IdleConnTimeout: 5 * time.Second}},
	}
}

// run posts until the context ends, and returns when the last call has.
func (p *poster) run(ctx context.Context) {
	numbers := make(chan int)
	var callers sync.WaitGroup
	for range p.settings.callers {
		callers.Go(func() {
			for n := range numbers {
				p.post(context.WithoutCancel(ctx), fmt.Sprintf("%s-%d@example.com", p.prefix, n))
			}
		})
	}
	tick := time.NewTicker(time.Second / time.Duration(p.settings.rate))
	defer tick.Stop()
	for n := 0; ctx.Err() == nil; n++ {
		select {
		case <-tick.C:
			select {
			case numbers <- n:
			case <-ctx.Done():
			}
		case <-ctx.Done():
		}
	}
	close(numbers)
	callers.Wait()
}

// post posts one contact until it is accepted, for as long as somebody would wait.
func (p *poster) post(ctx context.Context, email string) {
	began := time.Now()
	for time.Since(began) < 5*time.Minute {
		problem := p.call(ctx, email)
		if problem == "" {
			p.mu.Lock()
			p.taken = append(p.taken, acceptance{email: email, at: time.Now(), took: time.Since(began)})
			p.mu.Unlock()
			return
		}
		p.mu.Lock()
		p.refused[problem]++
		p.mu.Unlock()
		_ = wait(ctx, callAgain) // the call is made again anyway
	}
}

// call makes one call, and returns what was wrong with it.
func (p *poster) call(ctx context.Context, email string) (problem string) {
	form := url.Values{"key": {p.settings.key}, "email": {email}, "permission": {"2"}}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, p.settings.ingress+"/webhooks/contacts/email", strings.NewReader(form.Encode()))
	if err != nil {
		return "no request"
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	response, err := p.client.Do(request)
	if err != nil {
		return "no answer"
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, response.Body)
	if response.StatusCode != http.StatusOK {
		return fmt.Sprint(response.StatusCode)
	}
	return ""
}

// accepted returns what was accepted so far.
func (p *poster) accepted() []acceptance {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.taken[:len(p.taken):len(p.taken)]
}
