"""The clinician's review pages: a blind first read, then what the model says and on which cases it rests.

Nothing here depends visibly on a prediction before a reader's own opinion is kept. The room reaches models only
through what the pipeline has written into the records.
"""
