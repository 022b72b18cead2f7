package ingress

import (
	"container/list"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"postbus.dev/postbus/api/v1alpha1"
)

// gate bounds how many are inside at a time: connections, headers, requests or
// large bodies. Whoever is inside waits for its caller, or is at work. When the
// gate is full, the one that has waited the longest is cut off to make room; a
// newcomer is refused only when all are at work. So slow callers, however many,
// never keep a quick one out.
type gate struct {
	capacity   int
	turnedAway prometheus.Counter

	mutex   sync.Mutex
	inside  int
	waiting list.List     // of *pass; the front has waited the longest
	holding map[owner]int // passes inside, by owner; only a keyedGate has owners
}

// keyedGate is a gate for requests with an API key. One key, and one namespace,
// can hold only their share of its capacity.
type keyedGate struct {
	gate
	// requests names what the gate bounds, for problems: "imports".
	requests                     string
	perKey, perNamespace         int
	keyRefused, namespaceRefused prometheus.Counter
}

// owner is an API key that holds passes or, without a name, a namespace.
type owner struct{ namespace, key string }

// pass is one that is inside a gate.
type pass struct {
	gate *gate
	// owner is the key that the pass is counted for, zero where there is none.
	owner owner
	// cut cuts it off. It must not block, and must not use the pass.
	cut func()
	// atWork counts what is done on its behalf; an HTTP/2 connection can have
	// several requests at work.
	atWork int
	place  *list.Element // in waiting, nil while at work
	// patience is how long it may wait before it can be cut off, since when that is.
	patience time.Duration
	since    time.Time
	out      bool
}

// enter lets one in that waits for its caller, or returns nil.
func (g *gate) enter(cut func()) *pass {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	p := g.admitLocked(owner{}, cut)
	if p != nil {
		p.place = g.waiting.PushBack(p)
	}
	return p
}

// enterFor lets in a request of a key, at work. The error is a problem that
// names the limit that is reached.
func (g *keyedGate) enterFor(key *v1alpha1.ApiKey, cut func()) (*pass, error) {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	o := owner{key.Namespace, key.Name}
	switch {
	case g.holding[o] >= g.perKey:
		g.keyRefused.Inc()
		return nil, tooManyAtATime("the api key", g.perKey, g.requests)
	case g.holding[owner{namespace: o.namespace}] >= g.perNamespace:
		g.namespaceRefused.Inc()
		return nil, tooManyAtATime("the api key's namespace", g.perNamespace, g.requests)
	}
	p := g.admitLocked(o, cut)
	if p == nil {
		return nil, errOverloaded
	}
	p.atWork++
	return p, nil
}

// admitLocked makes room where there is none, and returns a pass that neither
// waits nor is at work yet, nil when all others are at work.
func (g *gate) admitLocked(o owner, cut func()) *pass {
	if g.inside >= g.capacity {
		g.turnedAway.Inc()
		slow := g.slowestLocked()
		if slow == nil {
			return nil
		}
		slow.exitLocked()
		slow.cut()
	}
	g.inside++
	if o != (owner{}) {
		if g.holding == nil {
			g.holding = map[owner]int{}
		}
		g.holding[o]++
		g.holding[owner{namespace: o.namespace}]++
	}
	return &pass{gate: g, owner: o, cut: cut}
}

// slowestLocked returns the pass that has waited the longest, of those that can be cut
// off, or nil.
func (g *gate) slowestLocked() *pass {
	for e := g.waiting.Front(); e != nil; e = e.Next() {
		if p := e.Value.(*pass); p.patience == 0 || time.Since(p.since) >= p.patience {
			return p
		}
	}
	return nil
}

// work tells that the caller is no longer waited for. It returns false when the
// pass was cut off before.
func (p *pass) work() bool {
	p.gate.mutex.Lock()
	defer p.gate.mutex.Unlock()
	if p.out {
		return false
	}
	p.atWork++
	p.leaveLineLocked()
	return true
}

// wait ends what work began: the caller is waited for again, behind all others, and
// has patience before it can be cut off.
func (p *pass) wait(patience time.Duration) {
	p.gate.mutex.Lock()
	defer p.gate.mutex.Unlock()
	p.atWork--
	if p.atWork == 0 && !p.out {
		if p.patience = patience; patience > 0 {
			p.since = time.Now()
		}
		p.place = p.gate.waiting.PushBack(p)
	}
}

// isOut reports whether the pass was cut off, or has left.
func (p *pass) isOut() bool {
	p.gate.mutex.Lock()
	defer p.gate.mutex.Unlock()
	return p.out
}

// leave makes room. Once it has returned, cut is not called any more. A nil pass
// has nothing to leave.
func (p *pass) leave() {
	if p == nil {
		return
	}
	p.gate.mutex.Lock()
	defer p.gate.mutex.Unlock()
	p.exitLocked()
}

// exitLocked takes the pass out of the gate.
func (p *pass) exitLocked() {
	if p.out {
		return
	}
	p.out = true
	p.gate.inside--
	p.leaveLineLocked()
	if p.owner == (owner{}) {
		return
	}
	for _, o := range []owner{p.owner, {namespace: p.owner.namespace}} {
		if p.gate.holding[o]--; p.gate.holding[o] == 0 {
			delete(p.gate.holding, o)
		}
	}
}

func (p *pass) leaveLineLocked() {
	if p.place != nil {
		p.gate.waiting.Remove(p.place)
		p.place = nil
	}
}
