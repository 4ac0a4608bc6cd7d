"""The commands: click only; each calls one public function."""
