"""The command line: parsing and printing only. Each command mirrors a public function."""
