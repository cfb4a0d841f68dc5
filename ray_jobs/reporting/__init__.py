"""Reports: pages and charts that need nothing else; a library for every job."""
