package ingress

import (
	"container/list"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// gate bounds how many are inside at a time: connections, calls or large
// bodies. Whoever is inside waits for its caller, or is at work. When the gate
// is full, the one that has waited the longest is cut off to make room; a
// newcomer is refused only when all are at work. So slow callers, however many,
// never keep a quick one out.
type gate struct {
	capacity   int
	turnedAway prometheus.Counter

	mutex   sync.Mutex
	inside  int
	waiting list.List // of *pass; the front has waited the longest
}

// pass is one that is inside a gate.
type pass struct {
	gate *gate
	// cut cuts it off. It must not block, and must not use the pass.
	cut func()
	// atWork counts what is done on its behalf; an HTTP/2 connection can have
	// several requests at work.
	atWork int
	place  *list.Element // in waiting, nil while at work
	out    bool
}

// enter lets one in that waits for its caller, or returns nil.
func (g *gate) enter(cut func()) *pass {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	if g.inside >= g.capacity {
		g.turnedAway.Inc()
		longest := g.waiting.Front()
		if longest == nil {
			return nil
		}
		slow := longest.Value.(*pass)
		slow.exit()
		slow.cut()
	}
	g.inside++
	p := &pass{gate: g, cut: cut}
	p.place = g.waiting.PushBack(p)
	return p
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
	p.leaveLine()
	return true
}

// wait ends what work began: the caller is waited for again, behind all others.
func (p *pass) wait() {
	p.gate.mutex.Lock()
	defer p.gate.mutex.Unlock()
	p.atWork--
	if p.atWork == 0 && !p.out {
		p.place = p.gate.waiting.PushBack(p)
	}
}

// isOut tells whether the pass was cut off, or has left.
func (p *pass) isOut() bool {
	p.gate.mutex.Lock()
	defer p.gate.mutex.Unlock()
	return p.out
}

// leave makes room. Once it has returned, cut is not called any more.
func (p *pass) leave() {
	p.gate.mutex.Lock()
	defer p.gate.mutex.Unlock()
	p.exit()
}

// exit takes the pass out of the gate, whose mutex is held.
func (p *pass) exit() {
	if p.out {
		return
	}
	p.out = true
	p.gate.inside--
	p.leaveLine()
}

func (p *pass) leaveLine() {
	if p.place != nil {
		p.gate.waiting.Remove(p.place)
		p.place = nil
	}
}
