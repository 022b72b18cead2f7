package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"postbus.dev/postbus/api/v1alpha1"
)

const (
	// attackRate is how many contacts a second the healthy tenant posts, for attackWarm before
	// its latency is measured for attackTime.
	attackRate = 50
	attackWarm = 5 * time.Second
	attackTime = 20 * time.Second
	// attackBar is the most that an attack may lengthen the healthy tenant's 99th percentile.
	attackBar = 2
	// attackMemory is the most resident memory, in MB, that the process under attack may reach.
	attackMemory = 700
)

// attack is what one tenant does to an installation that it shares with another.
type attack struct {
	name string
	// begin starts the attack, which ends with the context. It returns once the attack works.
	begin func(ctx context.Context, a *attacker) error
}

// attackList are all attacks.
func attackList() []attack {
	return []attack{
		{"a template of 700 kB, callback that hangs", templateBomb},
		{"contacts of 60 kB, callback that hangs", fatContacts},
		{"five filters of regular expressions", heavyFilters},
		{"300 exports that nobody reads", slowExports},
		{"8 imports of ten lines a second", slowImports},
	}
}

// attacks measures how much longer a healthy tenant's events take while another tenant
// attacks, and how much memory that costs. Each round measures the healthy tenant alone, and
// then beside each attack. The store is in memory: where a disk stalls, a 99th percentile
// shows the disk alone.
func attacks(e engine) trial {
	commands := []string{"controller", "ingress", "dispatcher"}
	if e == sqliteEngine {
		commands = []string{"standalone"}
	}
	return trial{
		name: fmt.Sprintf("attacks, %s", e),
		measure: func(ctx context.Context, p *plane, found *facts) (err error) {
			place, err := p.newStoreInMemory(ctx, e, "postbus")
			if err != nil {
				return err
			}
			i, err := p.installOver(ctx, place, 1, commands...)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, i.close()) }()
			return i.underAttack(ctx, found)
		},
	}
}

// underAttack measures the healthy tenant's 99th percentile alone and beside each attack.
func (i *installation) underAttack(ctx context.Context, found *facts) error {
	healthy := newArrivals()
	if err := i.listen(ctx, healthy); err != nil {
		return err
	}
	if err := i.subscribeAlike(ctx, 1); err != nil {
		return err
	}
	alone, err := i.healthyP99(ctx, healthy, "alone")
	if err != nil {
		return err
	}
	found.add(fact{name: "p99 of a healthy tenant alone", unit: "ms", digits: 2}, alone)
	for n, attack := range attackList() {
		p99, err := i.beside(ctx, healthy, n, attack)
		if err != nil {
			return fmt.Errorf("%s: %w", attack.name, err)
		}
		found.add(fact{name: "beside " + attack.name + ", times as long", digits: 2, most: attackBar}, p99/alone)
	}
	for _, c := range i.components {
		peak, err := peakMemory(c.process.PID())
		if err != nil {
			return err
		}
		found.add(fact{name: "peak resident memory, " + c.command, unit: "MB", most: attackMemory}, peak/megabyte)
	}
	return nil
}

// healthyP99 returns the healthy tenant's 99th percentile in milliseconds.
func (i *installation) healthyP99(ctx context.Context, healthy *arrivals, name string) (float64, error) {
	var took []time.Duration
	for _, load := range []steadyLoad{{name: "warm-" + name, during: attackWarm}, {name: name, during: attackTime}} {
		load.perSecond = attackRate
		var err error
		if took, err = healthy.timed(ctx, i, load); err != nil {
			return 0, err
		}
		if len(took) < load.contacts() {
			return 0, fmt.Errorf("post %d contacts: %w", load.contacts()-len(took), errRefused)
		}
	}
	return percentile(took, 99), nil
}

// beside returns the healthy tenant's 99th percentile beside an attack.
func (i *installation) beside(ctx context.Context, healthy *arrivals, n int, attack attack) (p99 float64, err error) {
	a := &attacker{installation: *i}
	a.namespace, a.callback, a.subscriptions = i.plane.nextNamespace(), nil, 0
	attacking, end := context.WithCancel(ctx)
	defer func() {
		end()
		a.running.Wait()
		a.callback.close()
		err = errors.Join(err, a.unsubscribe(ctx), a.removeAll(ctx))
	}()
	if err := a.declare(ctx, 1); err != nil {
		return 0, err
	}
	if err := attack.begin(attacking, a); err != nil {
		return 0, err
	}
	return i.healthyP99(ctx, healthy, "attack"+strconv.Itoa(n))
}

// attacker is a tenant with a namespace, a list and a key of its own in an installation that it
// shares.
type attacker struct {
	installation
	// running are the goroutines of the attack.
	running sync.WaitGroup
}

// hang starts a callback that reads nothing and never answers.
func (a *attacker) hang(ctx context.Context) error {
	return a.listen(ctx, http.HandlerFunc(func(_ http.ResponseWriter, request *http.Request) { <-request.Context().Done() }))
}

// removeAll removes what declare has made.
func (a *attacker) removeAll(ctx context.Context) error {
	var errs []error
	for _, kind := range []client.Object{&v1alpha1.ApiKey{}, &v1alpha1.ContactList{}, &corev1.Secret{}} {
		errs = append(errs, a.plane.client.DeleteAllOf(ctx, kind, client.InNamespace(a.namespace)))
	}
	return errors.Join(errs...)
}

// templateBomb has 1,000 attempts at a time carry a body of 700 kB that a template of 300
// characters makes, to a callback that does not read.
func templateBomb(ctx context.Context, a *attacker) error {
	if err := a.hang(ctx); err != nil {
		return err
	}
	template := fmt.Sprintf(`cel.bind(a, [event.contact.email + %q], cel.bind(b, [%s], cel.bind(c, [%s], cel.bind(d, [%s], {"d": [%s]}))))`,
		strings.Repeat("x", 90), repeated("a", 10), repeated("b", 10), repeated("c", 10), repeated("d", 6))
	err := a.subscribe(ctx, 1, func(int) v1alpha1.WebhookSubscriptionSpec {
		spec := a.calling(1)
		spec.Payload = v1alpha1.Payload{Format: v1alpha1.FormatTemplate, Template: template}
		spec.RateLimit.MaxInFlight = 1000
		spec.Callback.Timeout = &metav1.Duration{Duration: 30 * time.Second}
		return spec
	})
	if err != nil {
		return err
	}
	return importing{name: "bomb", contacts: 1000}.run(ctx, &a.installation)
}

func repeated(element string, times int) string {
	return strings.TrimSuffix(strings.Repeat(element+",", times), ",")
}

// fatFields is how many fields of 255 four-byte characters a fat contact has: just what fits
// into the 64 KiB that a contact's values may have together.
const fatFields = 60

// fatContacts imports contacts of 60 kB, as fast as one import takes them, whose callback hangs.
func fatContacts(ctx context.Context, a *attacker) error {
	if err := a.hang(ctx); err != nil {
		return err
	}
	fields := make([]v1alpha1.CustomField, fatFields)
	for n := range fields {
		fields[n] = v1alpha1.CustomField{Name: "fat" + strconv.Itoa(n), Type: v1alpha1.CustomFieldString}
	}
	list := &v1alpha1.ContactList{ObjectMeta: a.named(listName + "0")}
	if err := a.plane.client.Get(ctx, client.ObjectKeyFromObject(list), list); err != nil {
		return err
	}
	list.Spec.CustomFields = fields
	if err := a.plane.client.Update(ctx, list); err != nil {
		return err
	}
	err := a.await(ctx, list, func() bool {
		return len(list.Status.Conditions) > 0 && list.Status.Conditions[0].ObservedGeneration == list.Generation
	})
	if err != nil {
		return err
	}
	if err := a.subscribeAlike(ctx, 1); err != nil {
		return err
	}
	var line strings.Builder
	for n := range fatFields {
		fmt.Fprintf(&line, `,"fat%d":%q`, n, strings.Repeat("𝄞", 255))
	}
	a.running.Go(func() {
		a.upload(ctx, func(n int) (string, time.Duration) {
			return fmt.Sprintf(`{"email":"fat-%d@example.com"%s}`+"\n", n, line.String()), 0
		})
	})
	return nil
}

// heavyFilters has five subscriptions match each of 20 contacts a second by seven regular
// expressions that are as large as a spec may have them.
func heavyFilters(ctx context.Context, a *attacker) error {
	if err := a.hang(ctx); err != nil {
		return err
	}
	matches := strings.TrimSuffix(strings.Repeat(`s.matches(".{0,40}.{0,40}xb") || `, 7), " || ")
	filter := fmt.Sprintf("cel.bind(s, event.id + %q, %s)", strings.Repeat("a", 1900), matches)
	err := a.subscribe(ctx, 5, func(int) v1alpha1.WebhookSubscriptionSpec {
		spec := a.calling(5)
		spec.Filter = filter
		return spec
	})
	if err != nil {
		return err
	}
	a.running.Go(func() {
		a.upload(ctx, func(n int) (string, time.Duration) {
			return fmt.Sprintf(`{"email":"heavy-%d@example.com"}`+"\n", n), 50 * time.Millisecond
		})
	})
	return nil
}

// slowExports opens 300 exports of 5 MB and reads none.
func slowExports(ctx context.Context, a *attacker) error {
	if err := (importing{name: "export", contacts: 20_000}).run(ctx, &a.installation); err != nil {
		return err
	}
	request := "GET /v1/lists/" + listName + "0/contacts HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + a.keys[0] + "\r\n\r\n"
	for range 300 {
		if err := a.hold(ctx, request); err != nil {
			return err
		}
	}
	return nil
}

// slowImports runs 8 imports of ten lines a second each.
func slowImports(ctx context.Context, a *attacker) error {
	for importer := range 8 {
		a.running.Go(func() {
			a.upload(ctx, func(n int) (string, time.Duration) {
				return fmt.Sprintf(`{"email":"slow-%d-%d@example.com"}`+"\n", importer, n), 100 * time.Millisecond
			})
		})
	}
	return nil
}

// peakMemory returns the most resident memory, in bytes, that a process has had.
func peakMemory(pid int) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	_, after, _ := strings.Cut(string(text), "VmHWM:")
	number, _, _ := strings.Cut(strings.TrimSpace(after), " ")
	kilobytes, err := strconv.ParseFloat(number, 64)
	return kilobytes * 1024, err
}
