// Runs the official clients against the sandbox at SANDBOX_URL; any failed assertion ends it with exit code 1.
// With RECORDING=<file> the requests of the labelled calls are written there.

import { save, url } from './sandbox.mjs';
import { ably } from './ably.mjs';
import { expo } from './expo.mjs';

// Read by the Expo SDKs when they are loaded.
process.env.EXPO_BASE_URL = url.origin;
const { Expo: Expo6 } = await import('expo-server-sdk-6');
const { Expo: Expo7 } = await import('expo-server-sdk-7');

await ably();
await expo(Expo6, 'sdk6');
await expo(Expo7, 'sdk7');
await save();
console.log('the official clients are content');
