package controllers

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
)

const (
	// removalDelay is how long contacts stay after their list was deleted, or after a
	// Namespace took the place of an earlier one. Ingress takes some until its informer
	// has seen the deletion, and they are to be removed too.
	removalDelay = 5 * time.Second
	// removedAtOnce is how many contacts, or events, are removed in a commit, which other
	// writers wait for.
	removedAtOnce = 500
	// removalPause lets other lists have their turn.
	removalPause = time.Millisecond
)

func deletesContacts(list *v1alpha1.ContactList) bool {
	return list.Spec.DeletionPolicy == v1alpha1.DeletionDelete
}

// bind owns status.namespaceUID and status.formerNamespaceUID.
func (c contactLists) bind(ctx context.Context, list *v1alpha1.ContactList) error {
	err := c.namespaces.bind(ctx, list, &list.Status.NamespaceUID, &list.Status.FormerNamespaceUID)
	if refusalIn(err) != nil {
		list.Status.Contacts, list.Status.Subscribed = nil, nil
	}
	return err
}

// cleanup removes contacts and events of a list that is deleted, and waits while there
// are more. The data of an earlier Namespace is not the list's to remove.
func (c contactLists) cleanup(ctx context.Context, list *v1alpha1.ContactList) error {
	if !deletesContacts(list) { // it said so once
		return nil
	}
	known := &v1alpha1.ContactList{}
	if err := live(ctx, c.reader, list, known); err != nil || known.UID != list.UID {
		return err
	}
	switch err := c.bind(ctx, list.DeepCopy()); {
	case refusalIn(err) != nil, apierrors.IsNotFound(err):
		return nil //nolint:nilerr // what the store has is an earlier Namespace's
	case err != nil:
		return err
	}
	if left := removalDelay - c.now().Sub(list.DeletionTimestamp.Time); left > 0 {
		return wait{left}
	}
	if err := removeContacts(ctx, c.namespaces.store, listKey(list)); err != nil {
		return err
	}
	if err := removeEvents(ctx, c.namespaces.store, listKey(list)); err != nil {
		return err
	}
	if err := c.namespaces.store.DropDelivery(ctx, store.MailKey(listKey(list))); err != nil {
		return fmt.Errorf("drop the delivery of mails: %w", err)
	}
	if err := c.announceRemoval(ctx, list); err != nil {
		return err
	}
	return c.namespaces.store.ReleaseObject(ctx, string(list.UID))
}

// removalRemembered is for how long a repeated removal of a list is recognized.
const removalRemembered = 24 * time.Hour

// announceRemoval tells the dispatchers that the log no longer has the list's events.
// They hold some of them in memory, to send or to retry.
func (c contactLists) announceRemoval(ctx context.Context, list *v1alpha1.ContactList) error {
	now := c.now()
	once := store.Once{Key: "ContactList/" + string(list.UID) + "/removed", Now: now, Until: now.Add(removalRemembered)}
	err := c.operations.RaiseOnce(ctx, once, contact.Event{
		Type: contact.EventListRemoved, Source: contact.SourceAPI, Time: now, List: contact.ListKey{Namespace: list.Namespace},
		Operation: &contact.Operation{Kind: kindContactList, Name: list.Name},
	})
	if err != nil {
		return fmt.Errorf("announce the removal of the list: %w", err)
	}
	return nil
}

// count owns status.contacts and status.subscribed.
func (c contactLists) count(ctx context.Context, list *v1alpha1.ContactList) error {
	counts, err := c.store.Count(ctx, listKey(list))
	if err != nil {
		return fmt.Errorf("count contacts: %w", err)
	}
	list.Status.Contacts = &counts.Contacts
	list.Status.Subscribed = &counts.Subscribed
	return nil
}

// publish looks at the templates that the list names and puts the good ones
// into the store, where ingress and dispatcher find them.
func (c contactLists) publish(ctx context.Context, list *v1alpha1.ContactList) error {
	subject, err := c.subject(ctx, list)
	if err != nil {
		return err
	}
	if found, known := c.inspected.of(client.ObjectKeyFromObject(list), subject); known {
		return found.refused
	}
	refused, err := c.inspect(ctx, list)
	if err != nil {
		return err
	}
	c.inspected.remember(client.ObjectKeyFromObject(list), verdict{subject: subject, refused: refused})
	return refused
}

// subject says in a few words what an inspection of the list looks at: this spec
// and these versions of ConfigMaps. It reads from the cache alone.
func (c contactLists) subject(ctx context.Context, list *v1alpha1.ContactList) (string, error) {
	var subject strings.Builder
	fmt.Fprintf(&subject, "%s %d", list.UID, list.Generation)
	for _, name := range configMapsOf(list) {
		version, err := versionOf(ctx, c.client, "ConfigMap", client.ObjectKey{Namespace: list.Namespace, Name: name})
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&subject, " %s=%s", name, version)
	}
	return subject.String(), nil
}

// inspect makes the store hold what is good of the list's texts, and refuses
// the rest.
func (c contactLists) inspect(ctx context.Context, list *v1alpha1.ContactList) (refused, err error) {
	configMaps, err := c.readConfigMaps(ctx, list)
	if err != nil {
		return nil, err
	}
	before, err := c.store.LoadTexts(ctx, listKey(list))
	if err != nil {
		return nil, fmt.Errorf("read the texts in use: %w", err)
	}
	look := inspection{configMaps: configMaps, before: before, policy: &c.mail}
	look.run(list)
	if equality.Semantic.DeepEqual(before, look.good) {
		return look.refused(), nil
	}
	if err := c.store.SaveTexts(ctx, listKey(list), look.good); err != nil {
		return nil, fmt.Errorf("publish templates: %w", err)
	}
	return look.refused(), nil
}

// readConfigMaps returns the ConfigMaps that the list names and that exist, from
// the API server, once each. One that the cache does not know is not asked for:
// its name may be none, and the loop runs again when it appears.
func (c contactLists) readConfigMaps(ctx context.Context, list *v1alpha1.ContactList) (map[string]*corev1.ConfigMap, error) {
	found := map[string]*corev1.ConfigMap{}
	for _, name := range configMapsOf(list) {
		key := client.ObjectKey{Namespace: list.Namespace, Name: name}
		version, err := versionOf(ctx, c.client, "ConfigMap", key)
		if err != nil {
			return nil, err
		}
		if version == "" {
			continue
		}
		configMap := &corev1.ConfigMap{}
		err = c.reader.Get(ctx, key, configMap)
		switch {
		case apierrors.IsNotFound(err):
		case err != nil:
			return nil, fmt.Errorf("read ConfigMap %s: %w", name, err)
		default:
			found[name] = configMap
		}
	}
	return found, nil
}

// configMapsOf returns the names of the ConfigMaps that a list names, each once,
// sorted.
func configMapsOf(list *v1alpha1.ContactList) []string {
	var names []string
	for _, mailing := range list.Spec.OptIn.Mailings {
		if mailing.TemplateRef.Name != "" {
			names = append(names, mailing.TemplateRef.Name)
		}
	}
	if name := list.Spec.Pages.TemplateRef.Name; name != "" {
		names = append(names, name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func listKey(list *v1alpha1.ContactList) contact.ListKey {
	return contact.ListKey{Namespace: list.Namespace, Name: list.Name}
}

// verdict is what an inspection found.
type verdict struct {
	// subject is what was inspected.
	subject string
	// refused is what was wrong with it, nil when nothing was.
	refused error
}

// verdicts remembers what was found of each list. Lists are counted every few
// seconds, and no ConfigMap is to be read for that.
type verdicts struct {
	mutex sync.Mutex
	last  map[client.ObjectKey]verdict
}

// of returns what was found of a list, if this was inspected last.
func (v *verdicts) of(list client.ObjectKey, subject string) (found verdict, known bool) {
	v.mutex.Lock()
	defer v.mutex.Unlock()
	found, known = v.last[list]
	return found, known && found.subject == subject
}

func (v *verdicts) remember(list client.ObjectKey, found verdict) {
	v.mutex.Lock()
	defer v.mutex.Unlock()
	if v.last == nil {
		v.last = map[client.ObjectKey]verdict{}
	}
	v.last[list] = found
}

// forget is for a list that is gone. Its texts stay in the store, as its
// contacts do.
func (v *verdicts) forget(list client.ObjectKey) {
	v.mutex.Lock()
	defer v.mutex.Unlock()
	delete(v.last, list)
}
