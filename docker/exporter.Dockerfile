# The trainer's image and llama.cpp's converters and tools on top of it: what quantizing needs. Its
# layers are the trainer's, and one of its own.
#
# Both come in as named contexts, out of one source package that is locked by hash; the tools are
# compiled by a compiler that is locked by hash as well (launcher/runtime/llama_cpp_tools.py), for every engine once.

FROM trainer AS exporter
# Where a stage finds them that has them mounted elsewhere. The bytecode that a converter may have
# left in the cache is of no use: it bears dates. The cache's markers are the cache's.
RUN --mount=type=bind,from=llama_cpp,target=/mnt/llama_cpp \
    --mount=type=bind,from=tools,target=/mnt/tools \
    mkdir /affineur && cp -R /mnt/llama_cpp /mnt/tools /affineur/ && \
    find /affineur \( -name __pycache__ -o -name .whole.json \) -prune -exec rm -rf {} + && \
    chmod -R u=rwX,go=rX /affineur && chmod a+x /affineur/tools/llama-* && \
    find /affineur -depth -exec touch --no-dereference --date=@0 {} + && \
    touch --date=@0 /etc /run /mnt
ENV PATH=/affineur/tools:$PATH
