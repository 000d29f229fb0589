"""Many runs, recorded: the store, where a record comes from, and the one function in which the stages meet."""
