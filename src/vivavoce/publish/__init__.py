"""A run on the Hugging Face Hub: a student with a card made from the run, and the data set that it learnt from.

::

    run ──prepare──▶ RUN/publish/{model,data} ──refuse keys, personal data──▶ upload

Everything that would be uploaded lies in the folder before anything is sent, and is what ``--dry-run`` leaves.
"""
