//go:build !wasip1

package weir

// Export does nothing where tests run.
func Export(Plugin) {}
