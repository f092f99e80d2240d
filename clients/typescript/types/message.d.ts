// Made from config/contract/message.schema.json by `npm run generate`; do not edit.

/**
 * A session event as a backend enqueues it: the body of a message to the exchange herald.events, UTF-8, at most 65536 bytes. herald ignores fields that are not here. It does not look into data: what is said of the payloads is between the backend and its clients.
 */
export interface SessionEventMessage {
  /**
   * The producer's own id of the event. The same id for the same session and partner is one event, delivered once. Absent: the AMQP property message_id stands in; both absent: the message is malformed. 1 to 128 characters (code points), at most 255 bytes, no control characters.
   */
  id?: string;
  /**
   * The session it belongs to. 1 to 128 characters (code points), at most 255 bytes, no control characters.
   */
  sessionId: string;
  /**
   * The event's name, e.g. partner.signed_compact. Names outside the catalogue are normal and get the fallback text. 1 to 128 characters (code points), at most 255 bytes, no control characters.
   */
  event: string;
  /**
   * The recipient. Absent: it is published on the session's channel only, and nobody is pushed to. 1 to 128 characters (code points), at most 255 bytes, no control characters.
   */
  partnerId?: string;
  /**
   * Travels inside the published data, for the clients' own filter; this user is never pushed to. Empty: nobody is excluded. At most 255 bytes, no control characters.
   */
  excludeUserId?: string;
  /**
   * The payload; default {}. The event's name decides which fields are known: see EventPayloads.
   */
  data?: {
    [k: string]: unknown;
  };
  /**
   * When it happened, RFC 3339. Its life is counted from here; absent: from the AMQP timestamp, else from when herald first received it.
   */
  occurredAt?: string;
  /**
   * When it stops to matter, RFC 3339. Absent: the catalogue's life for this event, else 24 hours.
   */
  expiresAt?: string;
  [k: string]: unknown;
}
/**
 * The catalogue: the data of each event by its name. For generators of typed clients.
 *
 * This interface was referenced by `SessionEventMessage`'s JSON-Schema
 * via the `definition` "EventPayloads".
 */
export interface EventPayloads {
  'partner.signed_compact': PartnerSignedCompactData;
  'partner.stage_completed': PartnerStageCompletedData;
  'partner.advanced': PartnerAdvancedData;
  'partner.empathy_shared': PartnerEmpathySharedData;
  'partner.needs_shared': PartnerNeedsSharedData;
  'partner.ranking_submitted': PartnerRankingSubmittedData;
  'agreement.proposed': AgreementProposedData;
  'agreement.confirmed': AgreementConfirmedData;
  'session.paused': SessionPausedData;
  'session.resumed': SessionResumedData;
  'session.resolved': SessionResolvedData;
}
/**
 * data of partner.signed_compact. The partner signed the Curiosity Compact. Further fields are allowed.
 *
 * This interface was referenced by `SessionEventMessage`'s JSON-Schema
 * via the `definition` "PartnerSignedCompactData".
 */
export interface PartnerSignedCompactData {
  /**
   * When it was signed.
   */
  signedAt?: string;
  /**
   * The user who signed.
   */
  signedBy?: string;
  [k: string]: unknown;
}
/**
 * data of partner.stage_completed. The partner finished a stage. Further fields are allowed.
 *
 * This interface was referenced by `SessionEventMessage`'s JSON-Schema
 * via the `definition` "PartnerStageCompletedData".
 */
export interface PartnerStageCompletedData {
  /**
   * The stage it belongs to.
   */
  stage?: number;
  /**
   * When it was finished.
   */
  completedAt?: string;
  /**
   * The user who finished it.
   */
  completedBy?: string;
  [k: string]: unknown;
}
/**
 * data of partner.advanced. The partner moved to the next stage. Further fields are allowed.
 *
 * This interface was referenced by `SessionEventMessage`'s JSON-Schema
 * via the `definition` "PartnerAdvancedData".
 */
export interface PartnerAdvancedData {
  /**
   * The stage that begins.
   */
  toStage?: number;
  [k: string]: unknown;
}
/**
 * data of partner.empathy_shared. The partner shared an empathy statement. Further fields are allowed.
 *
 * This interface was referenced by `SessionEventMessage`'s JSON-Schema
 * via the `definition` "PartnerEmpathySharedData".
 */
export interface PartnerEmpathySharedData {
  /**
   * The stage it belongs to.
   */
  stage?: number;
  [k: string]: unknown;
}
/**
 * data of partner.needs_shared. The partner shared needs. Further fields are allowed.
 *
 * This interface was referenced by `SessionEventMessage`'s JSON-Schema
 * via the `definition` "PartnerNeedsSharedData".
 */
export interface PartnerNeedsSharedData {
  /**
   * The stage it belongs to.
   */
  stage?: number;
  [k: string]: unknown;
}
/**
 * data of partner.ranking_submitted. The partner ranked strategies. Further fields are allowed.
 *
 * This interface was referenced by `SessionEventMessage`'s JSON-Schema
 * via the `definition` "PartnerRankingSubmittedData".
 */
export interface PartnerRankingSubmittedData {
  /**
   * The stage it belongs to.
   */
  stage?: number;
  [k: string]: unknown;
}
/**
 * data of agreement.proposed. There is a new agreement. Further fields are allowed.
 *
 * This interface was referenced by `SessionEventMessage`'s JSON-Schema
 * via the `definition` "AgreementProposedData".
 */
export interface AgreementProposedData {
  /**
   * The agreement.
   */
  agreementId?: string;
  [k: string]: unknown;
}
/**
 * data of agreement.confirmed. One partner confirmed an agreement; it takes one confirmation, not both. Further fields are allowed.
 *
 * This interface was referenced by `SessionEventMessage`'s JSON-Schema
 * via the `definition` "AgreementConfirmedData".
 */
export interface AgreementConfirmedData {
  /**
   * The agreement.
   */
  agreementId?: string;
  [k: string]: unknown;
}
/**
 * data of session.paused. The session is paused: a cooling period. Further fields are allowed.
 *
 * This interface was referenced by `SessionEventMessage`'s JSON-Schema
 * via the `definition` "SessionPausedData".
 */
export interface SessionPausedData {
  /**
   * When it was paused.
   */
  pausedAt?: string;
  /**
   * Why, in the user's own words. Private: the shipped catalogue keeps it out of pushes.
   */
  reason?: string;
  [k: string]: unknown;
}
/**
 * data of session.resumed. The session goes on. Further fields are allowed.
 *
 * This interface was referenced by `SessionEventMessage`'s JSON-Schema
 * via the `definition` "SessionResumedData".
 */
export interface SessionResumedData {
  /**
   * When it went on.
   */
  resumedAt?: string;
  [k: string]: unknown;
}
/**
 * data of session.resolved. The conversation is resolved. Further fields are allowed.
 *
 * This interface was referenced by `SessionEventMessage`'s JSON-Schema
 * via the `definition` "SessionResolvedData".
 */
export interface SessionResolvedData {
  /**
   * When it was resolved.
   */
  resolvedAt?: string;
  [k: string]: unknown;
}
