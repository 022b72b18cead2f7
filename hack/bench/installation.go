package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/hack/devenv/process"
	"postbus.dev/postbus/internal/apikey"
)

// listName is what the lists are called that contacts are posted to, and keyName what
// their keys are; a number stands behind both.
const (
	listName = "newsletter-"
	keyName  = "bench-"
)

// memoryLimit is the limit that config/dispatcher sets.
const memoryLimit = "GOMEMLIMIT=1GiB"

// installation is Postbus over a store of its own, with lists.
type installation struct {
	plane     *plane
	namespace string
	store     storePlace
	// components are its processes, the last one that which delivers.
	components []*component
	// ingress is its URL, and metrics that of the process which delivers.
	ingress, metrics string
	// keys are those of the lists.
	keys []string
	// callback is what subscriptions have called, nil where there is none.
	callback *callback
	// subscriptions is how many there are.
	subscriptions int
}

// component is a process of an installation.
type component struct {
	name, command string
	// arguments are behind the command.
	arguments []string
	// ready is the URL that answers 200 once the process can do its work.
	ready   string
	process *process.Process
}

// install makes an installation of one process, with so many lists.
func (p *plane) install(ctx context.Context, e engine, lists int) (*installation, error) {
	return p.installOf(ctx, e, lists, "standalone")
}

// installOf makes an installation of processes that are named by their commands. SQLite
// takes one alone.
func (p *plane) installOf(ctx context.Context, e engine, lists int, commands ...string) (*installation, error) {
	place, err := p.newStore(ctx, e, "postbus")
	if err != nil {
		return nil, err
	}
	return p.installOver(ctx, place, lists, commands...)
}

// installOver makes an installation over a store that is empty.
func (p *plane) installOver(ctx context.Context, place storePlace, lists int, commands ...string) (*installation, error) {
	i := &installation{plane: p, namespace: p.nextNamespace(), store: place}
	for _, command := range commands {
		c, err := i.component(ctx, command)
		if err == nil {
			err = i.start(ctx, c)
		}
		if err != nil {
			return nil, errors.Join(err, i.close())
		}
	}
	if err := i.declare(ctx, lists); err != nil {
		return nil, errors.Join(err, i.close())
	}
	return i, nil
}

// component adds a process to be started, at addresses that it keeps.
func (i *installation) component(ctx context.Context, command string) (*component, error) {
	metrics, err := i.plane.freeAddress(ctx)
	if err != nil {
		return nil, err
	}
	i.metrics = "http://" + metrics
	c := &component{name: i.namespace + "-" + command, command: command, ready: i.metrics + "/readyz"}
	c.arguments = []string{"--kubeconfig=" + i.plane.kubeconfig(), i.store.flag(), "--metrics-address=" + metrics, "--profiling"}
	if command != "controller" && command != "dispatcher" {
		ingress, err := i.plane.freeAddress(ctx)
		if err != nil {
			return nil, err
		}
		i.ingress = "http://" + ingress
		c.ready = i.ingress + "/readyz"
		// One key can have half of the requests at a time: as many as there are callers.
		c.arguments = append(c.arguments, "--ingress-address="+ingress, "--allow-plain-http", "--max-requests=512")
	}
	if command != "ingress" {
		c.arguments = append(c.arguments, "--allow-http-callbacks", "--allow-callback-networks=127.0.0.0/8")
	}
	if command != "ingress" && command != "dispatcher" {
		c.arguments = append(c.arguments, "--lease-namespace=default")
	}
	i.components = append(i.components, c)
	return c, nil
}

// start starts a process, and returns once it is ready.
func (i *installation) start(ctx context.Context, c *component) (err error) {
	c.process, err = i.plane.run(ctx, process.Command{
		Name: c.name, Path: i.plane.postbus, Args: append([]string{c.command}, c.arguments...), Append: true,
		Env: []string{memoryLimit},
	}, c.ready)
	return err
}

// dispatcher is the process that delivers.
func (i *installation) dispatcher() *component { return i.components[len(i.components)-1] }

// stop stops a process, if it runs.
func (c *component) stop() error {
	if c.process == nil {
		return nil
	}
	stopping := c.process
	c.process = nil
	return stopping.Stop(stopPatience)
}

// declare applies lists and their keys, and returns once ingress knows these.
func (i *installation) declare(ctx context.Context, lists int) error {
	if err := i.plane.create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: i.namespace}}); err != nil {
		return err
	}
	i.keys = make([]string, lists)
	return each(ctx, lists, func(ctx context.Context, n int) error {
		i.keys[n] = apikey.Generate()
		list := &v1alpha1.ContactList{ObjectMeta: i.named(listName + strconv.Itoa(n))}
		secret := &corev1.Secret{ObjectMeta: i.named(keyName + strconv.Itoa(n)), StringData: map[string]string{apikey.SecretKey: i.keys[n]}}
		key := &v1alpha1.ApiKey{ObjectMeta: i.named(secret.Name), Spec: v1alpha1.ApiKeySpec{
			ListRef: v1alpha1.ListReference{Name: list.Name}, Scopes: []v1alpha1.ApiKeyScope{v1alpha1.ScopeContactsWrite, v1alpha1.ScopeContactsImport, v1alpha1.ScopeContactsRead},
			RateLimit: v1alpha1.KeyRateLimit{RequestsPerSecond: 10000}, // what is measured is not the default
		}}
		for _, object := range []client.Object{secret, list, key} {
			if err := i.plane.create(ctx, object); err != nil {
				return err
			}
		}
		err := i.await(ctx, key, func() bool { return meta.IsStatusConditionTrue(key.Status.Conditions, v1alpha1.ConditionReady) })
		if err != nil {
			return err
		}
		return awaitOK(ctx, http.MethodPost, i.importURL(n)) // of nothing
	})
}

func (p *plane) create(ctx context.Context, object client.Object) error {
	if err := p.client.Create(ctx, object); err != nil {
		return fmt.Errorf("create %T %s: %w", object, object.GetName(), err)
	}
	return nil
}

// listen starts the callback that subscriptions have called.
func (i *installation) listen(ctx context.Context, handler http.Handler) (err error) {
	i.callback, err = listen(ctx, handler)
	return err
}

// contact is the call that saves a contact of a list, subscribed, which is two events.
func (i *installation) contact(list int, email string) posted {
	return posted{
		url: i.ingress + contactPath, contentType: "application/x-www-form-urlencoded",
		body: "key=" + i.keys[list] + "&email=" + email + "&permission=2",
	}
}

func (i *installation) named(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: i.namespace, Name: name}
}

// await returns once an object, read again and again, is as it should be.
func (i *installation) await(ctx context.Context, object client.Object, fits func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	for {
		if err := i.plane.client.Get(ctx, client.ObjectKeyFromObject(object), object); err != nil {
			return fmt.Errorf("read %T %s: %w", object, object.GetName(), err)
		}
		if fits() {
			return nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("%T %s does not become ready: %w", object, object.GetName(), ctx.Err())
		}
	}
}

// close removes everything: subscriptions and keys while there is a controller that
// lets them go. Thousands of them go with the control plane, which takes less time.
func (i *installation) close() error {
	defer i.callback.close()
	ctx, cancel := context.WithTimeout(context.Background(), 2*startPatience)
	defer cancel()
	many := i.subscriptions >= manySubscriptions
	var errs []error
	if !many {
		errs = append(errs, i.unsubscribe(ctx))
		for _, kind := range []client.Object{&v1alpha1.ApiKey{}, &v1alpha1.ContactList{}} {
			errs = append(errs, i.plane.client.DeleteAllOf(ctx, kind, client.InNamespace(i.namespace)))
		}
	}
	for _, component := range i.components {
		errs = append(errs, component.stop())
	}
	errs = append(errs, i.store.remove(ctx, i.plane))
	if many {
		errs = append(errs, i.plane.renewCluster(ctx))
	}
	return errors.Join(errs...)
}
