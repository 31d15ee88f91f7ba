"""The bridge and its rules, and the small HTTP servers that listen there."""
