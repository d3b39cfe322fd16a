package policystore

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/selinux-provision/selinux-provision/internal/filecontexts"
)

// rank is what the policy's compiler sorts file contexts by (libsepol, cil_post_fc_fill_data and cil_post_filecon_compare): of several that fit
// a path the last counts, and those of modules come in this order, however they are declared. Lines of file_contexts.local stay as they are.
type rank struct{ special, stem, length int }

func rankOf(expression string) (r rank) {
	for i := 0; i < len(expression); i++ {
		switch c := expression[i]; {
		case strings.IndexByte(".^$?*+|[({", c) >= 0:
			r.special = -1 // first
		default:
			if c == '\\' {
				i++
			}
			if r.special == 0 {
				r.stem++
			}
		}
		r.length++
	}
	return r
}

// compareContexts orders file contexts as the compiler does.
func compareContexts(a, b FileContext) int {
	x, y := rankOf(a.Path), rankOf(b.Path)
	types := []string{"any", "file", "dir", "char", "block", "socket", "pipe", "symlink"} // as in its enum cil_filecon_types
	return cmp.Or(cmp.Compare(x.special, y.special), cmp.Compare(x.stem, y.stem), cmp.Compare(x.length, y.length),
		cmp.Compare(slices.Index(types, a.Type), slices.Index(types, b.Type)), strings.Compare(a.Path, b.Path))
}

// contextsOf reads a file of file contexts, and gives its lines in their order.
func contextsOf(name string, content []byte) (contexts *filecontexts.Contexts, lines []FileContext, err error) {
	contexts = filecontexts.New()
	if err := contexts.Add(name, bytes.NewReader(content)); err != nil {
		return nil, nil, err
	}
	types := map[filecontexts.Kind]string{}
	for name, kind := range kindsOfFiles() {
		types[kind] = name
	}
	for _, m := range slices.SortedFunc(contexts.All, func(a, b filecontexts.Match) int { return cmp.Compare(a.Number, b.Number) }) {
		if !m.Unusable {
			lines = append(lines, FileContext{Path: m.Expression, Type: types[m.Kind], Context: cmp.Or(m.Context, "<<none>>")})
		}
	}
	return contexts, lines, nil
}

// otherwise says which lines of file_contexts.local, theirs, would give something else if they were declared, beside a policy with the file contexts
// built.
func otherwise(built, local []byte, theirs []FileContext) (said []string, err error) {
	here, policys, err := contextsOf("file_contexts", built)
	if err != nil {
		return nil, err
	}
	if err := here.Add("file_contexts.local", bytes.NewReader(local)); err != nil {
		return nil, err
	}
	var sorted bytes.Buffer
	kinds := kindsOfFiles()
	for _, fc := range slices.SortedStableFunc(slices.Values(slices.Concat(policys, theirs)), compareContexts) {
		fmt.Fprintln(&sorted, fc.Path, kinds[fc.Type].Column(), fc.Context)
	}
	declared := filecontexts.New()
	if err := declared.Add("file_contexts", &sorted); err != nil {
		return nil, err
	}
	for _, fc := range theirs {
		kind := fc.sampleKind()
		paths, _ := filecontexts.Samples(fc.Path)
		for _, path := range paths {
			is, _ := here.Find(path, kind)
			would, _ := declared.Find(path, kind)
			if is.Unusable || would.Unusable || is.Context == would.Context {
				continue
			}
			said = append(said, fmt.Sprintf("file_contexts.local, where the last line that fits counts, gives %s the context %s by %s; declared, it gets %s by %s, "+
				"since the longer beginning counts", path, cmp.Or(is.Context, "<<none>>"), is.Expression, cmp.Or(would.Context, "<<none>>"), would.Expression))
			break
		}
	}
	return slices.Compact(said), nil
}
