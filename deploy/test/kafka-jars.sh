#!/usr/bin/env bash
# Prints the folder of Apache Kafka's jars; fetches them first when the cache has none.
# The folder appears under its name only when it is complete.
set -euo pipefail
. "$(dirname -- "$0")/lib.sh"

version=4.1.0
jars=$CACHE/kafka-$version
mkdir -p "$CACHE"
exec 9>"$CACHE/kafka.lock"
flock 9
if [ ! -d "$jars" ]; then
  partial=$(mktemp -d "$CACHE/kafka.XXXXXX")
  trap 'rm -rf "$partial"' EXIT
  cat >"$partial/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>weir.test</groupId>
  <artifactId>kafka</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$version</version>
    </dependency>
    <dependency>
      <groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>$version</version>
    </dependency>
  </dependencies>
</project>
POM
  (cd "$partial" && mvn -q -B dependency:copy-dependencies -DoutputDirectory=lib) >&2
  mv "$partial/lib" "$jars"
fi
echo "$jars"
