"""Everything that follows from results alone: tests, tables, charts, the page, comparisons."""
