#!/bin/bash
# $1 framework, $2 input, $3 output
exec onecopy run "$1" --input "$2" --output "$3"
