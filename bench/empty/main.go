// Command empty is what a Go program costs on this machine before it does anything.
package main

func main() {}
