#!/usr/bin/env bash
# Gives docket the rights that a pipeline needs, and no others.
#
#   deploy/kafka/acls.sh BOOTSTRAP PIPELINE SOURCE_TOPIC...
#   deploy/kafka/acls.sh kafka:9092 opa opa-decisions
#
# PRINCIPAL       User:docket unless set
# KAFKA_ACLS      kafka-acls.sh of your Kafka; on the PATH unless set
# COMMAND_CONFIG  a properties file for it, where Kafka wants to know who asks
#
# DOOR           1 if the pipeline has a door, which writes to the source topics
#
# FACTS          with a join section, the topics under join.facts, separated by blanks
#
# `docket redrive` of what intake rejected writes to the source topics; give Write there to who does that, not to docket.
#
# For topics of other names (docket.topic, docket.rejects, spikes.topic) set DOCKET_TOPIC, REJECTS_TOPIC and SPIKES_TOPIC. Brokers before Kafka 3.0
# want IdempotentWrite on the cluster, too.
set -euo pipefail
[ $# -ge 3 ] || { sed -n '2,19s/^# \{0,1\}//p' "$0"; exit 2; }
bootstrap=$1 pipeline=$2; shift 2
docket=${DOCKET_TOPIC:-docket.$pipeline}
rejects=${REJECTS_TOPIC:-$docket.rejects}
spikes=${SPIKES_TOPIC:-$docket.spikes}
principal=${PRINCIPAL:-User:docket}

allow() {
  # shellcheck disable=SC2086 # KAFKA_ACLS may be a command with arguments
  ${KAFKA_ACLS:-kafka-acls.sh} --bootstrap-server "$bootstrap" ${COMMAND_CONFIG:+--command-config "$COMMAND_CONFIG"} \
    --add --force --allow-principal "$principal" "$@" >/dev/null
}

# Intake reads decisions,
sources=()
for topic in "$@"; do sources+=(--topic "$topic"); done
allow --operation Read "${sources[@]}"
if [ "${DOOR:-}" = 1 ]; then allow --operation Write --operation DescribeConfigs "${sources[@]}"; fi
# writes the docket and what it can't read, in transactions,
allow --operation Write --operation Describe --transactional-id "docket.$pipeline.intake" --resource-pattern-type prefixed
# and asks how large records may be. Create is for `docket setup`; leave it out if somebody else makes the topics.
allow --operation Read --operation Write --operation DescribeConfigs --operation Create --topic "$docket" --topic "$rejects"
# What the detector of spikes has learned.
allow --operation Read --operation Write --operation Create --topic "$spikes"
# The join reads what requests did, and has topics of its own.
if [ -n "${FACTS:-}" ]; then
  facts=()
  for topic in $FACTS; do facts+=(--topic "$topic"); done
  allow --operation Read "${facts[@]}"
  allow --operation Read --operation Write --operation DescribeConfigs --operation Create --topic "$docket.pending" --topic "$docket.facts" --topic "$docket.amendments"
  for part in facts join; do
    allow --operation Write --operation Describe --transactional-id "docket.$pipeline.$part" --resource-pattern-type prefixed
  done
fi
# Each part is a consumer group.
allow --operation Read --group "docket.$pipeline." --resource-pattern-type prefixed
echo "$principal: pipeline $pipeline reads $*, writes $docket, $rejects and $spikes"
