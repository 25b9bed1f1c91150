mod config_corpus;
