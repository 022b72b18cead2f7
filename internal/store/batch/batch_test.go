package batch

import (
	"context"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/internal/store"
)

// patience is how long a test waits for what must happen.
const patience = 10 * time.Second

// job is told which batch it was in.
type job struct{ batch int }

// engine runs batches, each when the test says so.
type engine struct {
	begun, goOn chan struct{}
	// batches are the jobs that were run.
	batches [][]*job
}

func newEngine() *engine { return &engine{begun: make(chan struct{}), goOn: make(chan struct{})} }

func (e *engine) run(batch []*job) {
	e.begun <- struct{}{}
	<-e.goOn
	e.batches = append(e.batches, append([]*job(nil), batch...))
	for _, j := range batch {
		j.batch = len(e.batches)
	}
}

// call has jobs wait in the queue, and returns them with what is closed when the last
// of them is done.
func call(t *testing.T, q *Queue[*job], count int) (jobs []*job, done chan struct{}) {
	t.Helper()
	for range count {
		jobs, done = append(jobs, &job{}), make(chan struct{})
		NewWithT(t).Expect(q.send(t.Context(), queued[*job]{job: jobs[len(jobs)-1], done: done})).To(Succeed())
	}
	return jobs, done
}

// What comes while a batch is run is the next one, in its order and up to its size.
func TestWhatQueuesUpIsOneBatch(t *testing.T) {
	g := NewWithT(t)
	e := newEngine()
	q := NewQueue(e.run)
	defer q.Close()
	alone, _ := call(t, q, 1)
	<-e.begun
	together, done := call(t, q, maxBatch+5)
	close(e.goOn)
	<-e.begun
	<-e.begun
	g.Eventually(done, patience).Should(BeClosed())
	g.Expect(e.batches).To(Equal([][]*job{alone, together[:maxBatch], together[maxBatch:]}))

	next := &job{}
	go func() { <-e.begun }()
	g.Expect(q.Do(t.Context(), next)).To(Succeed())
	g.Expect(next.batch).To(Equal(4), "a caller goes on when its job is done")
}

// Close waits for what is queued and refuses the rest; whoever has gone does not get
// into a queue that is full.
func TestClose(t *testing.T) {
	g := NewWithT(t)
	e := newEngine()
	q := NewQueue(e.run)
	call(t, q, 1)
	<-e.begun
	_, last := call(t, q, queueSize)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	g.Expect(q.Do(gone, &job{})).To(MatchError(context.Canceled))

	closed := make(chan struct{})
	go func() {
		defer close(closed)
		q.Close()
	}()
	g.Eventually(func() error { return q.Do(gone, &job{}) }, patience).Should(MatchError(store.ErrUnavailable))
	g.Expect(closed).NotTo(BeClosed())
	close(e.goOn)
	for range queueSize / maxBatch {
		<-e.begun
	}
	<-closed
	g.Expect(last).To(BeClosed())
	q.Close()
}

// A queue adds to a job the channel that its caller waits at, and nothing else.
func BenchmarkDo(b *testing.B) {
	q := NewQueue(func([]*job) {})
	defer q.Close()
	b.ReportAllocs()
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := q.Do(b.Context(), &job{}); err != nil {
				b.Error(err)
			}
		}
	})
}
