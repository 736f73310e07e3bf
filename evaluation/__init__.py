"""Model and shards in; masks, J and F, tables and reports out."""
