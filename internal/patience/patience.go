// Package patience calls what may never come back, such as a look at a file system whose server does not answer, and gives up on it.
//
// The kernel cannot be told to break such a call off. So it is made in a goroutine, which is left behind with all that it holds until the
// call comes back by itself or the process ends. A Room bounds how many may be left behind, and sees to it that nobody else is sent after
// the first one.
//
// Do not use it for what changes the host and must be known to have ended: whoever gave up does not know what comes of the call.
package patience

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// ErrNoAnswer says that a call was given up, or not even made because an earlier one for the same is still away.
var ErrNoAnswer = errors.New("its file system does not answer")

// grace is how long a call may take to end after its context has.
const grace = 2 * time.Second

// Room is where calls are left behind that do not come back. The zero Room is ready for use.
type Room struct {
	// Most is how many calls may be away at a time after they were given up; 0: 64. Each holds a thread.
	Most int
	// Back is told of each call that was given up and has come back, by the name of what it was about; nil: nobody is. It is called in a
	// goroutine of the call's own.
	Back func(about string)

	mu   sync.Mutex
	away map[string]int
	all  int
}

// Away tells whether a call about something was given up and has not come back.
func (r *Room) Away(about string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.away[about] > 0
}

// enter is false where nobody may be sent.
func (r *Room) enter(about string) bool {
	most := r.Most
	if most == 0 {
		most = 64
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.away[about] == 0 && r.all < most
}

func (r *Room) leaveBehind(about string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.away == nil {
		r.away = map[string]int{}
	}
	r.away[about]++
	r.all++
}

func (r *Room) comeBack(about string) {
	r.mu.Lock()
	r.all--
	if r.away[about]--; r.away[about] == 0 {
		delete(r.away, about)
	}
	r.mu.Unlock()
	if r.Back != nil {
		r.Back(about)
	}
}

// Ask gives what f gives. If f neither returns nor calls alive for as long as limit, or does not return soon after ctx ends, it is given up:
// the error is ErrNoAnswer, beside that of ctx if it has ended, and the context that f has is done. What f opens it must close itself, and it must
// touch nothing of its caller's that the caller goes on to use. About names what does not answer: while a call about the same is away, f is
// not called at all.
func Ask[T any](ctx context.Context, room *Room, about string, limit time.Duration, f func(ctx context.Context, alive func()) (T, error)) (T, error) {
	var none T
	given := new(T) // is f's own until it has come back in time
	came, err := ask(ctx, room, about, limit, func(ctx context.Context, alive func()) (err error) {
		*given, err = f(ctx, alive)
		return err
	})
	if !came {
		return none, err
	}
	return *given, err
}

// ask is Ask for an answer of any type, so that the program has it once. came tells whether f has returned.
func ask(ctx context.Context, room *Room, about string, limit time.Duration, f func(ctx context.Context, alive func()) error) (came bool, err error) {
	if !room.enter(about) {
		return false, ErrNoAnswer
	}
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	signs := make(chan struct{}, 1)
	answer := make(chan error, 1)
	var state struct { // of who was first
		sync.Mutex
		returned, givenUp bool
	}
	go func() {
		answer <- f(inner, func() {
			select {
			case signs <- struct{}{}:
			default:
			}
		})
		state.Lock()
		late := state.givenUp
		state.returned = true
		state.Unlock()
		if late {
			room.comeBack(about)
		}
	}()
	patience := time.NewTimer(limit)
	defer patience.Stop()
	ended, why := ctx.Done(), ErrNoAnswer
	for waiting := true; waiting; {
		select {
		case err := <-answer:
			return true, err
		case <-signs:
			if ended != nil {
				patience.Reset(limit)
			}
		case <-ended:
			ended, why = nil, fmt.Errorf("%w: %w", ErrNoAnswer, context.Cause(ctx))
			patience.Reset(grace)
		case <-patience.C:
			waiting = false
		}
	}
	state.Lock()
	defer state.Unlock()
	if state.returned { // in this very moment
		return true, <-answer
	}
	state.givenUp = true
	room.leaveBehind(about)
	return false, why
}

// Budget is how long those that do not answer are waited for, all together.
type Budget struct {
	Room Room
	Left time.Duration
	// Least is how long each of them is waited for in any case, and Most how long none is waited for longer; 0: there is no such bound.
	Least, Most time.Duration
}

// AskWithin is Ask with what a budget has left, from which one that does not answer takes what it was waited for.
func AskWithin[T any](ctx context.Context, b *Budget, about string, f func() (T, error)) (T, error) {
	limit := max(b.Left, b.Least)
	if b.Most > 0 {
		limit = min(limit, b.Most)
	}
	begin := time.Now()
	answer, err := Ask(ctx, &b.Room, about, limit, func(context.Context, func()) (T, error) { return f() })
	if errors.Is(err, ErrNoAnswer) {
		b.Left -= time.Since(begin)
	}
	return answer, err
}
