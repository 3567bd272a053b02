#!/bin/sh
# A cluster of one machine: starts the job it is given in the background and prints its number, as `sbatch` would.
sh "$1" >/dev/null 2>&1 &
echo $!
