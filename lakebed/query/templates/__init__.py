"""Named SQL statements with parameters, a file each."""
