"""A car: doors, engine, fuel, brakes, climate, lights, tyres and navigation.

Its zip codes, distances and shop are upstream's, as far as they are known; an unknown one is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from vivavoce.environments.bfcl.service import Refused, Service

Door = Literal["driver", "passenger", "rear_left", "rear_right"]
DOORS: tuple[Door, ...] = ("driver", "passenger", "rear_left", "rear_right")
TANK = 50.0
"""Gallons that the tank holds."""
MILES_PER_GALLON = 20.0
LITERS_PER_GALLON, GALLONS_PER_LITER = 3.78541, 0.264172
FULL_BRAKE_N, PARKING_BRAKE_N = 1000.0, 500.0
HEALTHY_PSI = (30.0, 35.0)
SHOP = "456 Oakwood Avenue, Rivermist, 83214"
ZIP_CODES = {
    "Autumnville": "51479",
    "Crescent Hollow": "69238",
    "Maplecrest": "56108",
    "Oakendale": "47329",
    "Rivermist": "83214",
    "San Francisco": "94016",
    "Shadowridge": "71354",
    "Silverpine": "62947",
    "Stonebrook": "74532",
    "Sunset Valley": "83462",
    "Willowbend": "52013",
}
DISTANCES_KM = {
    frozenset(zips): km
    for zips, km in {
        ("47329", "52013"): 290.0,
        ("47329", "62947"): 1053.0,
        ("51479", "69238"): 630.0,
        ("56108", "62947"): 320.0,
        ("62947", "94016"): 780.0,
        ("71354", "83462"): 450.0,
        ("74532", "83214"): 750.0,
        ("74532", "94016"): 880.0,
        ("83214", "94016"): 980.0,
    }.items()
}


class Vehicle(Service):
    """The car."""

    NAME = "VehicleControlAPI"
    DOCUMENT = "vehicle_control.json"

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.fuelLevel = float(config.get("fuelLevel", 0.0))
        self.batteryVoltage = float(config.get("batteryVoltage", 12.6))
        self.engineState: str = config.get("engineState", "stopped")
        self.doorStatus: dict[str, str] = {**dict.fromkeys(DOORS, "unlocked"), **config.get("doorStatus", {})}
        self.acTemperature = float(config.get("acTemperature", 25.0))
        self.fanSpeed: int = config.get("fanSpeed", 50)
        self.acMode: str = config.get("acMode", "auto")
        self.humidityLevel = float(config.get("humidityLevel", 50.0))
        self.headLightStatus: str = config.get("headLightStatus", "off")
        self.parkingBrakeStatus: str = config.get("parkingBrakeStatus", "released")
        self.cruiseStatus: str = config.get("cruiseStatus", "inactive")
        self.distanceToNextVehicle = float(config.get("distanceToNextVehicle", 50.0))
        self.destination: str = config.get("destination", "None")
        self._parking_n = float(config.get("parkingBrakeForce", 0.0))
        self._slope = float(config.get("slopeAngle", 0.0))
        self._brake_n = 0.0
        self._speed = 0.0
        sides = ("frontLeft", "frontRight", "rearLeft", "rearRight")
        self._tyres = {f"{side}TirePressure": float(config.get(f"{side}TirePressure", 32.0)) for side in sides}

    def startEngine(self, ignitionMode: Literal["START", "STOP"]) -> dict[str, Any]:
        """Start or stop. It starts with all doors locked, the brake pedal pressed to the floor, and some fuel."""
        if ignitionMode == "START":
            if unlocked := self._unlocked_doors():
                raise Refused(f"to start, lock every door first; not locked: {', '.join(unlocked)}")
            if self._brake_n < FULL_BRAKE_N:
                raise Refused("to start, press the brake pedal fully first")
            if self.fuelLevel <= 0:
                raise Refused("the tank is empty")
        self.engineState = "running" if ignitionMode == "START" else "stopped"
        return {
            "engineState": self.engineState,
            "fuelLevel": self.fuelLevel,
            "batteryVoltage": self.batteryVoltage,
        }

    def fillFuelTank(self, fuelAmount: float) -> dict[str, float]:
        """Add gallons."""
        if fuelAmount < 0:
            raise Refused("fuel can be added, not taken")
        if self.fuelLevel + fuelAmount > TANK:
            raise Refused(f"the tank holds {TANK:g} gallons, of which {self.fuelLevel:g} are full")
        self.fuelLevel += fuelAmount
        return {"fuelLevel": self.fuelLevel}

    def lockDoors(self, unlock: bool, door: list[Door]) -> dict[str, Any]:
        """Lock or unlock doors."""
        status = "unlocked" if unlock else "locked"
        self.doorStatus |= dict.fromkeys(door, status)
        return {"lockStatus": status, "remainingUnlockedDoors": len(self._unlocked_doors())}

    def adjustClimateControl(
        self,
        temperature: float,
        unit: Literal["celsius", "fahrenheit"] = "celsius",
        fanSpeed: int = 50,
        mode: Literal["auto", "cool", "heat", "defrost"] = "auto",
    ) -> dict[str, Any]:
        """Set temperature, fan and mode."""
        if not 0 <= fanSpeed <= 100:
            raise Refused("the fan's speed is 0 to 100")
        self.acTemperature = temperature if unit == "celsius" else (temperature - 32) * 5 / 9
        self.fanSpeed, self.acMode = fanSpeed, mode
        return {
            "currentTemperature": self.acTemperature,
            "climateMode": mode,
            "humidityLevel": self.humidityLevel,
        }

    def get_outside_temperature_from_google(self) -> dict[str, float]:
        """The outside temperature by Google; here it is always the same."""
        return {"outsideTemperature": 31.0}

    def get_outside_temperature_from_weather_com(self) -> dict[str, float]:
        """The outside temperature by weather.com."""
        return {"outsideTemperature": 30.5}

    def setHeadlights(self, mode: Literal["on", "off", "auto"]) -> dict[str, str]:
        """Switch them; ``auto`` is on."""
        self.headLightStatus = "off" if mode == "off" else "on"
        return {"headlightStatus": self.headLightStatus}

    def displayCarStatus(
        self,
        option: Literal["fuel", "battery", "doors", "climate", "headlights", "parkingBrake", "brakePedal", "engine"],
    ) -> dict[str, Any]:
        """Show one part of it."""
        shown: dict[str, dict[str, Any]] = {
            "fuel": {"fuelLevel": self.fuelLevel},
            "battery": {"batteryVoltage": self.batteryVoltage},
            "doors": {"doorStatus": self.doorStatus},
            "climate": {
                "currentACTemperature": self.acTemperature,
                "fanSpeed": self.fanSpeed,
                "climateMode": self.acMode,
                "humidityLevel": self.humidityLevel,
            },
            "headlights": {"headlightStatus": self.headLightStatus},
            "parkingBrake": {
                "parkingBrakeStatus": self.parkingBrakeStatus,
                "parkingBrakeForce": self._parking_n,
                "slopeAngle": self._slope,
            },
            "brakePedal": self._pedal(),
            "engine": {"engineState": self.engineState},
        }
        return {"status": shown[option]}

    def activateParkingBrake(self, mode: Literal["engage", "release"]) -> dict[str, Any]:
        """Set or release it."""
        self.parkingBrakeStatus = "engaged" if mode == "engage" else "released"
        self._parking_n = PARKING_BRAKE_N if mode == "engage" else 0.0
        return {
            "parkingBrakeStatus": self.parkingBrakeStatus,
            "_parkingBrakeForce": self._parking_n,
            "_slopeAngle": self._slope,
        }

    def pressBrakePedal(self, pedalPosition: float) -> dict[str, Any]:
        """Press it until it is released; 1 is to the floor."""
        if not 0 <= pedalPosition <= 1:
            raise Refused("the pedal's position is 0 to 1")
        self._brake_n = FULL_BRAKE_N * pedalPosition
        return self._pedal()

    def releaseBrakePedal(self) -> dict[str, Any]:
        """Let it go."""
        self._brake_n = 0.0
        return self._pedal()

    def setCruiseControl(self, speed: float, activate: bool, distanceToNextVehicle: float) -> dict[str, Any]:
        """Set or leave a speed. It needs a running engine."""
        if activate and self.engineState != "running":
            raise Refused("the engine does not run")
        if not 0 <= speed <= 120 or speed % 5:
            raise Refused("the speed is a multiple of 5 from 0 to 120")
        self.cruiseStatus = "active" if activate else "inactive"
        self.distanceToNextVehicle = distanceToNextVehicle
        self._speed = speed if activate else 0.0
        return {
            "cruiseStatus": self.cruiseStatus,
            "currentSpeed": self._speed,
            "distanceToNextVehicle": distanceToNextVehicle,
        }

    def get_current_speed(self) -> dict[str, float]:
        """The speed of the cruise control; nothing else moves the car."""
        return {"currentSpeed": self._speed}

    def display_log(self, messages: list[str]) -> dict[str, list[str]]:
        """Show messages."""
        return {"log": messages}

    def estimate_drive_feasibility_by_mileage(self, distance: float) -> dict[str, bool]:
        """Whether the fuel lasts so many miles."""
        return {"canDrive": self.fuelLevel * MILES_PER_GALLON >= distance}

    def liter_to_gallon(self, liter: float) -> dict[str, float]:
        """Convert."""
        return {"gallon": liter * GALLONS_PER_LITER}

    def gallon_to_liter(self, gallon: float) -> dict[str, float]:
        """Convert."""
        return {"liter": gallon * LITERS_PER_GALLON}

    def estimate_distance(self, cityA: str, cityB: str) -> dict[str, float]:
        """Kilometres between two zip codes."""
        km = 0.0 if cityA == cityB else DISTANCES_KM.get(frozenset((cityA, cityB)))
        if km is None:
            raise Refused(f"the distance from {cityA} to {cityB} is not known; cities are named by zip codes")
        return {"distance": km}

    def get_zipcode_based_on_city(self, city: str) -> dict[str, str]:
        """The zip code of a city."""
        if city not in ZIP_CODES:
            raise Refused(f"the zip code of {city} is not known")
        return {"zipcode": ZIP_CODES[city]}

    def set_navigation(self, destination: str) -> dict[str, str]:
        """Navigate somewhere."""
        self.destination = destination
        return {"status": f"navigating to {destination}"}

    def check_tire_pressure(self) -> dict[str, Any]:
        """The pressures, in psi, and whether all are healthy."""
        low, high = HEALTHY_PSI
        healthy = all(low <= pressure <= high for pressure in self._tyres.values())
        return {"tirePressure": {**self._tyres, "healthy_tire_pressure": healthy, "car_info": {}}}

    def find_nearest_tire_shop(self) -> dict[str, str]:
        """The nearest shop for tyres."""
        return {"shopLocation": SHOP}

    def _unlocked_doors(self) -> list[str]:
        return [door for door, status in self.doorStatus.items() if status != "locked"]

    def _pedal(self) -> dict[str, Any]:
        return {"brakePedalStatus": "pressed" if self._brake_n else "released", "brakePedalForce": self._brake_n}


__all__ = ["Vehicle"]
