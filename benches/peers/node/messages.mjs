// What the push says, by event.

export const PUSH_MESSAGES = {
  'partner.signed_compact': { title: 'Partner is ready', body: 'They signed the Curiosity Compact. Your turn!' },
  'partner.stage_completed': { title: 'Partner finished a stage', body: 'They completed their work. Check in when ready.' },
  'partner.advanced': { title: 'Partner moved on', body: 'They are in the next stage.' },
  'partner.empathy_shared': { title: 'Partner shared', body: 'They shared an empathy statement with you.' },
  'partner.needs_shared': { title: 'Partner shared', body: 'They shared their needs with you.' },
  'partner.ranking_submitted': { title: 'Partner ranked', body: 'They ranked the strategies.' },
  'agreement.proposed': { title: 'New agreement', body: 'There is an agreement to look at.' },
  'agreement.confirmed': { title: 'Agreement confirmed', body: 'An agreement was confirmed.' },
  'session.paused': { title: 'Session paused', body: 'Your partner paused the session.' },
  'session.resumed': { title: 'Session resumed', body: 'The session goes on.' },
  'session.resolved': { title: 'Session resolved', body: 'You reached the end together.' },
};

export const FALLBACK = { title: 'BeHeard', body: 'You have an update' };
