package relabel

import (
	"sync"
	"sync/atomic"
)

// task is what a worker takes: a directory to enter, one whose listing goes on, or a part of the entries of one.
type task struct {
	kind  taskKind
	node  *node
	batch *batch
	start int // of the part in the batch's entries
	end   int
}

type taskKind uint8

const (
	enter taskKind = iota
	list
	label
)

// queue holds what is to do and is not in a worker's own hands. The last in is the first out, so that the tree is walked depth first and
// what waits stays little.
type queue struct {
	mu      sync.Mutex
	wake    sync.Cond // there is a task
	rest    sync.Cond // more workers may work
	tasks   []task
	idle    atomic.Int32 // workers that wait for a task, and are not woken yet
	pending atomic.Int64 // tasks that are not done, in the queue or in hands
	active  atomic.Int32 // how many workers may work; the others sleep
	ended   bool
}

func (q *queue) end() {
	q.mu.Lock()
	q.ended = true
	q.idle.Store(0)
	q.wake.Broadcast()
	q.rest.Broadcast()
	q.mu.Unlock()
}

// add puts tasks into the queue and wakes as many as there are for.
func (q *queue) add(tasks ...task) {
	q.mu.Lock()
	q.tasks = append(q.tasks, tasks...)
	woken := min(len(tasks), int(q.idle.Load()))
	q.idle.Add(int32(-woken))
	for range woken {
		q.wake.Signal()
	}
	q.mu.Unlock()
}

// next gives the worker's own last task, else one of the queue; it waits while there is none, or too many work.
func (w *worker) next() (task, bool) {
	q := &w.run.queue
	if n := len(w.own); n > 0 && w.mayWork() {
		t := w.own[n-1]
		w.own = w.own[:n-1]
		return t, true
	}
	if len(w.own) > 0 {
		q.add(w.own...)
		clear(w.own)
		w.own = w.own[:0]
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for {
		switch n := len(q.tasks); {
		case q.ended:
			return task{}, false
		case !w.mayWork():
			q.rest.Wait()
		case n > 0:
			t := q.tasks[n-1]
			q.tasks[n-1] = task{}
			q.tasks = q.tasks[:n-1]
			return t, true
		default:
			q.idle.Add(1)
			q.wake.Wait() // who wakes it takes it off the count, so that nobody has it in mind twice
		}
	}
}

func (w *worker) mayWork() bool { return int32(w.id) < w.run.queue.active.Load() }

// share hands half of the worker's own tasks to those that wait, those that were there first: they are nearest to the root, and have
// the most below them.
func (w *worker) share() {
	if len(w.own) < 2 || w.run.queue.idle.Load() == 0 {
		return
	}
	half := len(w.own) / 2
	w.run.queue.add(w.own[:half]...)
	rest := copy(w.own, w.own[half:])
	clear(w.own[rest:])
	w.own = w.own[:rest]
}
