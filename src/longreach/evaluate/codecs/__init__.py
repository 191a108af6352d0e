"""What codecs of keys and values cost a model in answers, and what those that know their model are fitted to."""
