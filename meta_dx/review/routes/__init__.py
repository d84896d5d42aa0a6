"""What the review pages answer to requests: a module of routes for each page, or each part of one."""
