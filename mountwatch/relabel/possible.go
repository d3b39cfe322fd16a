package relabel

import "context"

func (r *run) possible(context.Context) error { return nil }
