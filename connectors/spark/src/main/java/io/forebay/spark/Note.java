package io.forebay.spark;

import com.fasterxml.jackson.databind.JsonNode;
import java.io.IOException;
import org.apache.arrow.flight.FlightInfo;
import org.apache.arrow.vector.types.pojo.Schema;

/**
 * What a FlightInfo tells beside its endpoints.
 *
 * @param version the published version, or {@code null} where nothing was published (files of others, a live session)
 * @param parts parts described
 * @param batches batches described
 * @param session the live session, or the one that was asked for, or {@code null}
 * @param live whether what is described ends in a live session
 */
record Note(Long version, long parts, long batches, String session, boolean live) {
  /** The schema of what the endpoints deliver. */
  static Schema schema(FlightInfo info) throws ForebayException {
    return info.getSchemaOptional().orElseThrow(() -> new ForebayException("INTERNAL", "the server tells no schema of a dataset"));
  }

  static Note of(FlightInfo info) throws ForebayException {
    try {
      JsonNode note = Command.JSON.readTree(info.getAppMetadata());
      JsonNode version = note.path("version");
      return new Note(
          version.isNumber() ? Long.valueOf(version.asLong()) : null,
          note.path("parts").asLong(),
          note.path("batches").asLong(),
          note.path("session").textValue(),
          note.path("state").asText().equals("live"));
    } catch (IOException e) {
      throw new ForebayException("INTERNAL", "the server's note about a dataset is not understood: " + e.getMessage());
    }
  }
}
