package provision

import "path"

// Modules gives the modules that the file names, without their content: nothing was read yet.
func (d *Document) Modules() []Module {
	var all []Module
	for _, ref := range d.modules {
		name, lang := moduleName(path.Base(ref.path))
		all = append(all, Module{Name: name, Path: ref.path, Lang: lang, Source: ref.source})
	}
	return all
}
