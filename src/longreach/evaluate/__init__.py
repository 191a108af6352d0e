"""Measuring: tasks, metrics, how sure a figure is, and runs that can be interrupted.

    tasks/        examples with questions, public, generated or of a corpus
    metrics/      from results and references to numbers
    statistics    intervals of means, paired differences, corrections for many
    prompt        an example as what a model reads
    respond       who answers: a model, a search, a reader
    results       the file of a run: one line per example, safe to interrupt
    run           task + respondent -> lines of a results file
    report        lines -> a table, and two runs side by side
    grid          what a sweep varies
    sweep         many configurations over the same examples, hopeless ones stopped
    frontier      which of them nothing beats; figure, page and parquet show and keep them
    tune          the best within limits of time and memory
    questions/    questions made from one's own documents
    stages        where the chain loses them

A line of results names its configuration, a table of columns such as `model` or `policy`: to sweep over something new
is to add a column.
"""
