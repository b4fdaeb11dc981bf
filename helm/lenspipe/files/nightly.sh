#!/bin/sh
# One night's run: nightly.sh SURVEY OUTPUT [OPTIONS OF lenspipe run]. @NIGHT@ in the survey file and
# in OUTPUT becomes the date (UTC) that the night was due on, so that a later try of the same Job goes
# on with the same run. JOB, the Job's name, ends in that moment in minutes since 1970, as a
# CronJob's do, or in a date, as in `kubectl create job --from=cronjob/NAME NAME-20261130`.
set -eu

due=${JOB##*-}
case $due in
    20[0-9][0-9][0-9][0-9][0-9][0-9]) night=$(date -u -d "$due" +%Y-%m-%d) ;;
    '' | *[!0-9]*)
        echo "error: JOB: expected a name that ends in minutes or in YYYYMMDD, found $JOB" >&2
        exit 2
        ;;
    ? | ?? | ??? | ???? | ????? | ?????? | ???????)
        # No CronJob's minutes have fewer digits since 1989: NAME-20261130-2 is no such moment.
        echo "error: JOB: expected a name that ends in minutes or in YYYYMMDD, found $JOB" >&2
        exit 2
        ;;
    *) night=$(date -u -d "@$((due * 60))" +%Y-%m-%d) ;;
esac

survey=$(mktemp -d)/survey.yaml
sed "s/@NIGHT@/$night/g" "$1" >"$survey"
output=$(echo "$2" | sed "s/@NIGHT@/$night/g")
shift 2
exec lenspipe run "$survey" --output "$output" "$@"
