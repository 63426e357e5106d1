module ab-split

go 1.27.1

require (
	go.bytecodealliance.org/pkg v0.4.0
	weir v0.1.0
)

replace (
	go.bytecodealliance.org/pkg => ../../../templates/go/weir/pkg
	weir => ../../../templates/go/weir
)
