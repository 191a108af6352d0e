"""The page for people: ask and see where the answer comes from, keep libraries, look at what was measured. NiceGUI
draws it; it is imported only where the page is served, and does its work through what the routes do theirs with."""
