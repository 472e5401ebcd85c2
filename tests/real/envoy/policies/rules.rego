package rules

# Of a request's number, which its path ends with, each third is denied.
denied(path) if {
	parts := split(split(path, "?")[0], "/")
	to_number(parts[count(parts) - 1]) % 3 == 0
}
