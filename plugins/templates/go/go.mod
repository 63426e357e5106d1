module plugin_name

go 1.27.1

require weir v0.1.0

require go.bytecodealliance.org/pkg v0.4.0 // indirect

replace (
	go.bytecodealliance.org/pkg => ./weir/pkg
	weir => ./weir
)
