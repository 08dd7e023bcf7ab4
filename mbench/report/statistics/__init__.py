"""Who is better than whom, by how much, and whether the difference may be chance."""
