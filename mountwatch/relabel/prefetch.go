package relabel

type prefetch struct{}

func (*prefetch) start() {}
